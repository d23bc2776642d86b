"""Trains the demo model from nothing: `python -m server.demo.train --minutes 17 --out results/demo`.

The budget is time: the lessons and the learning rate follow the share of it that has passed. A run that is stopped
goes on with `--resume` from its last checkpoint.
"""

import argparse
import os
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.data import DataLoader

from server.demo.batches import Lessons, Packed
from server.demo.scoring import draw_exam
from server.demo.trainer import RATE, Trainer
from server.demo.words import DICTIONARIES, load_words

SETTLE_EVERY = 8
"""Steps after which the clock waits for the device; without this, steps queue up and the clock runs ahead."""


@dataclass
class Report:
    """What is shown of the run between two reports."""

    trainer: Trainer
    bar: Progress
    task: TaskID
    losses: list[Tensor] = field(default_factory=list)
    samples: int = 0
    waited: float = 0.0
    """Seconds spent waiting for pictures."""
    since: float = field(default_factory=time.monotonic)

    def tell(self) -> None:
        """Move the bar; where there is no terminal, print a line. Then begin anew."""
        counters, passed = self.trainer.counters, time.monotonic() - self.since
        note = (
            f"step {counters.step} loss {torch.stack(self.losses).mean().item():.3f} rate {self.trainer.rate():.1e} "
            f"{self.samples / passed:.0f} samples/s, {self.waited / passed:.0%} waiting"
        )
        self.bar.update(self.task, completed=counters.seconds, note=note)
        if not self.trainer.console.is_terminal:
            self.trainer.console.print(f"{self.trainer.progress:6.1%} {note}", soft_wrap=True)
        self.losses, self.samples, self.waited, self.since = [], 0, 0.0, time.monotonic()


def run(trainer: Trainer) -> None:
    """Train until the budget is used up."""
    options = trainer.options
    progress: Synchronized[float] = get_context().Value("d", trainer.progress)
    exam = draw_exam(trainer.encoder, load_words(options.words, held_out=True), options.seed, options.exam)
    batches = _stream(trainer, progress)
    with _bar(trainer.console) as bar:
        task = bar.add_task("training", total=60 * options.minutes, completed=int(trainer.counters.seconds), note="")
        _loop(batches, progress, exam, Report(trainer, bar, task))
    trainer.save()
    trainer.console.print(
        f"done: {trainer.counters.step} steps, {trainer.counters.samples} samples, "
        f"{trainer.counters.seconds / 60:.1f} min; {trainer.examine(exam)}"
    )


def _loop(batches: Iterator[Packed], progress: "Synchronized[float]", exam: list[Packed], report: Report) -> None:
    trainer = report.trainer
    options, counters = trainer.options, trainer.counters
    now = saved = examined = time.monotonic()
    while trainer.progress < 1.0 and counters.step < options.steps:
        _step(batches, report)
        before, now = now, time.monotonic()
        counters.seconds += now - before
        progress.value = trainer.progress
        if now - report.since > options.tell:
            report.tell()
        if now - examined > options.examine:
            trainer.console.print(f"  {counters.seconds / 60:.1f} min: {trainer.examine(exam)}", soft_wrap=True)
            examined = time.monotonic()
        if now - saved > options.save:
            trainer.save()
            saved = time.monotonic()


def _step(batches: Iterator[Packed], report: Report) -> None:
    counters, asked = report.trainer.counters, time.monotonic()
    batch = next(batches).to(report.trainer.device)
    report.waited += time.monotonic() - asked
    report.losses.append(report.trainer.learn(batch))
    report.samples += len(batch.tasks)
    counters.step += 1
    counters.drawn += 1
    counters.samples += len(batch.tasks)
    if counters.step % SETTLE_EVERY == 0:
        report.losses[-1].item()


def _bar(console: Console) -> Progress:
    columns = (BarColumn(), TextColumn("{task.percentage:>3.0f}% {task.fields[note]}"), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _stream(trainer: Trainer, progress: "Synchronized[float]") -> Iterator[Packed]:
    options = trainer.options
    # Every tensor that a worker hands over holds an open file.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    lessons = Lessons(
        load_words(options.words, held_out=False), options.seed, options.batch, trainer.counters.drawn, progress
    )
    loader = DataLoader(
        lessons,
        batch_size=None,
        num_workers=options.workers,
        pin_memory=trainer.device.type == "cuda",
        worker_init_fn=_settle_worker,
    )
    return iter(loader)


def _settle_worker(_number: int) -> None:
    torch.set_num_threads(1)
    os.nice(5)  # the process that feeds the device goes first


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m server.demo.train", description=__doc__)
    parser.add_argument("--minutes", type=float, default=17.0, help="training time, all resumed parts together")
    parser.add_argument("--steps", type=int, default=10**9, help="stop after so many steps")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results/demo"), help="checkpoint and model folder go here")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="drawing processes")
    parser.add_argument("--batch", type=int, default=512, help="chats in a step")
    parser.add_argument("--rate", type=float, default=RATE, help="highest learning rate")
    parser.add_argument("--words", type=Path, default=DICTIONARIES, help="folder with dict/ and hunspell/")
    parser.add_argument("--exam", type=int, default=100, help="held-out samples of each task")
    parser.add_argument("--examine", type=float, default=120.0, help="seconds between exams")
    parser.add_argument("--save", type=float, default=60.0, help="seconds between checkpoints")
    parser.add_argument("--tell", type=float, default=10.0, help="seconds between reports")
    return parser.parse_args(arguments)


def main() -> None:
    """Train on the GPU if there is one."""
    options = parse()
    trainer = Trainer(options, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if options.resume:
        trainer.load()
    run(trainer)


if __name__ == "__main__":
    main()
