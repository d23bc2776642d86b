"""Trains the demo model from nothing: `python -m server.demo.train --minutes 17 --out runs/demo`.

The budget is time: the lessons and the learning rate follow the share of it that has passed. A run that is stopped
goes on with `--resume` from its last checkpoint.
"""

import argparse
import math
import os
import resource
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, Final, cast

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from server.demo.batches import Encoder, Lessons, Packed
from server.demo.modelfiles import write_model
from server.demo.network import Network, Shape
from server.demo.scoring import draw_exam, show, sit_exam
from server.demo.words import DICTIONARIES, load_words

RATE: Final = 2e-3
"""Highest learning rate."""
WARM_UP: Final = 300
"""Steps until the highest learning rate."""
DECAY_FROM: Final = 0.45
"""Share of the budget after which the rate falls, along a cosine."""
AVERAGE: Final = 0.999
"""How slowly the averaged weights, which are the ones exported, follow."""
CLIP: Final = 1.0
CHECKPOINT: Final = "checkpoint.pt"


@dataclass
class Counters:
    """How far a run has come."""

    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    drawn: int = 0
    """Batches taken from the stream."""
    losses: list[float] = field(default_factory=list)


class Trainer:
    """A run: network, averaged weights, optimiser and where it stands."""

    def __init__(self, options: argparse.Namespace, device: torch.device) -> None:
        self.options, self.device = options, device
        self.encoder = Encoder()
        torch.manual_seed(options.seed)
        pieces = self.encoder.tokenizer.get_vocab_size()
        self.shape = Shape(vocabulary=math.ceil(pieces / 64) * 64)
        self.network = Network(self.shape).to(device)
        self.average = {name: weight.detach().clone() for name, weight in self.network.named_parameters()}
        self.optimiser = _optimiser(self.network)
        self.counters = Counters()
        self.console = Console()

    @property
    def progress(self) -> float:
        """Share of the budget used, 0 to 1."""
        return min(1.0, self.counters.seconds / (60 * self.options.minutes))

    def rate(self) -> float:
        """Learning rate now."""
        warm = min(1.0, (self.counters.step + 1) / WARM_UP)
        past = max(0.0, self.progress - DECAY_FROM) / (1 - DECAY_FROM)
        return cast(float, self.options.rate) * warm * max(0.005, 0.5 * (1 + math.cos(math.pi * past)))

    def learn(self, batch: Packed) -> Tensor:
        """One step; returns the loss (nats a token) without waiting for the device."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate()
        with self._precision():
            scores = self.network(batch, noise=True)
        loss = F.cross_entropy(scores.float(), batch.answers)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        self.optimiser.step()
        self._follow()
        return loss.detach()

    def _precision(self) -> AbstractContextManager[Any]:
        on_gpu = self.device.type == "cuda"
        return torch.autocast("cuda", torch.bfloat16) if on_gpu else nullcontext()

    @torch.no_grad()
    def _follow(self) -> None:
        step = self.counters.step
        weight = 1 - min(AVERAGE, (1 + step) / (10 + step))
        current = dict(self.network.named_parameters())
        torch._foreach_lerp_([self.average[name] for name in current], list(current.values()), weight)

    def save(self) -> None:
        """Checkpoint and exported folder; a crash in between leaves the older checkpoint whole."""
        out = cast(Path, self.options.out)
        out.mkdir(parents=True, exist_ok=True)
        state = {
            "network": self.network.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "counters": vars(self.counters),
            "random": torch.get_rng_state(),
        }
        torch.save(state, out / f"{CHECKPOINT}.new")
        os.replace(out / f"{CHECKPOINT}.new", out / CHECKPOINT)
        write_model(out / "model", self.shape, self.encoder.tokenizer, self.average)

    def load(self) -> None:
        """Go on where the checkpoint was written."""
        state = torch.load(self.options.out / CHECKPOINT, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.counters = Counters(**state["counters"])
        torch.set_rng_state(state["random"].cpu())

    def examine(self, exam: list[Packed]) -> str:
        """Exact matches of the averaged weights."""
        own = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        marks = sit_exam(self.network, exam, self.device)
        self.network.load_state_dict(own)
        return show(marks)


def _optimiser(network: Network) -> torch.optim.AdamW:
    matrices = [weight for weight in network.parameters() if weight.dim() >= 2]
    vectors = [weight for weight in network.parameters() if weight.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    on_gpu = next(network.parameters()).is_cuda
    return torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98), fused=on_gpu)


def run(trainer: Trainer) -> None:
    """Train until the budget is used up."""
    options = trainer.options
    progress: Synchronized[float] = get_context().Value("d", trainer.progress)
    exam = draw_exam(trainer.encoder, load_words(options.words, held_out=True), options.seed, options.exam)
    batches = _stream(trainer, progress)
    with _bar(trainer.console) as bar:
        task = bar.add_task("training", total=60 * options.minutes, completed=trainer.counters.seconds, note="")
        _loop(trainer, batches, progress, exam, bar, task)
    trainer.save()
    trainer.console.print(
        f"done: {trainer.counters.step} steps, {trainer.counters.samples} samples, "
        f"{trainer.counters.seconds / 60:.1f} min; {trainer.examine(exam)}"
    )


def _loop(
    trainer: Trainer,
    batches: Iterator[Packed],
    progress: "Synchronized[float]",
    exam: list[Packed],
    bar: Progress,
    task: TaskID,
) -> None:
    options, counters = trainer.options, trainer.counters
    now = told = saved = examined = time.monotonic()
    waited = 0.0
    seen = counters.samples
    losses: list[Tensor] = []
    while trainer.progress < 1.0 and counters.step < options.steps:
        asked = time.monotonic()
        batch = next(batches).to(trainer.device)
        waited += time.monotonic() - asked
        losses.append(trainer.learn(batch))
        counters.step += 1
        counters.drawn += 1
        counters.samples += len(batch.tasks)
        if len(losses) % 8 == 0:
            losses[-1].item()  # keep the clock honest: without this, steps queue up on the device
        before, now = now, time.monotonic()
        counters.seconds += now - before
        progress.value = trainer.progress
        if now - told > options.tell:
            loss = torch.stack(losses).mean().item()
            note = (
                f"step {counters.step} loss {loss:.3f} rate {trainer.rate():.1e} "
                f"{(counters.samples - seen) / (now - told):.0f} samples/s, {waited / (now - told):.0%} waiting"
            )
            _tell(trainer, bar, task, note)
            losses, told, waited, seen = [], now, 0.0, counters.samples
        if now - examined > options.examine:
            trainer.console.print(f"  {counters.seconds / 60:.1f} min: {trainer.examine(exam)}")
            examined = time.monotonic()
        if now - saved > options.save:
            trainer.save()
            saved = time.monotonic()


def _tell(trainer: Trainer, bar: Progress, task: TaskID, note: str) -> None:
    """Move the bar; where there is no terminal, print a line."""
    bar.update(task, completed=trainer.counters.seconds, note=note)
    if not trainer.console.is_terminal:
        trainer.console.print(f"{trainer.progress:6.1%} {note}", soft_wrap=True)


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
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="checkpoint and model folder go here")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="drawing processes")
    parser.add_argument("--batch", type=int, default=384, help="chats in a step")
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
