"""Measures the exported model as anyone would run it: `python -m server.demo.evaluate --samples 300 --seed 20261123`.

Pictures go through the model's own processor and answers are generated greedily by transformers in bfloat16. An answer
counts when all of it is right. Words come from the held-out side of the dictionaries, which the training never sees.
"""

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from server.demo import MODEL_DIR
from server.demo.batches import worn
from server.demo.conversation import Chat, chat_messages, plain_turn, vary
from server.demo.patches import smart_resize
from server.demo.pictures import TASKS, Sample, make_sample
from server.demo.words import DICTIONARIES, Words, load_words

BATCH: Final = 32
LONGEST_ANSWER: Final = 96
CARD: Final = Path(__file__).parent / "CARD.md"


@dataclass(frozen=True)
class Score:
    """Right answers of one task, asked in one language."""

    task: str
    language: str
    right: int
    asked: int


@dataclass(frozen=True)
class Question:
    """A sample in the chat in which it is asked."""

    sample: Sample
    chat: Chat


class Reader:
    """The model behind transformers."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        from transformers import AutoProcessor, Qwen2VLForConditionalGeneration  # seconds to import

        self.device = device
        self.processor: Any = AutoProcessor.from_pretrained(folder)
        self.processor.tokenizer.padding_side = "left"
        model: Any = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16)
        self.model = model.to(device).eval()

    def answer(self, questions: Sequence[Question]) -> list[str]:
        """Greedy answers, generated together."""
        inputs = self.processor(**_inputs(self.processor, questions), padding=True, return_tensors="pt")
        inputs = inputs.to(self.device)
        with torch.no_grad():
            out = self.model.generate(
                **inputs, max_new_tokens=LONGEST_ANSWER, do_sample=False, temperature=None, top_k=None, top_p=None
            )
        fresh = out[:, inputs["input_ids"].shape[1] :]
        answers: list[str] = self.processor.batch_decode(fresh, skip_special_tokens=True)
        return answers


def _inputs(processor: Any, questions: Sequence[Question]) -> dict[str, Any]:
    text = [
        processor.apply_chat_template(chat_messages(question.chat), tokenize=False, add_generation_prompt=True)
        for question in questions
    ]
    turns = [turn for question in questions for turn in question.chat.turns]
    inputs: dict[str, Any] = {"text": text}
    if images := [image for turn in turns for image in turn.images]:
        inputs["images"] = images
    if clips := [np.stack([np.asarray(frame) for frame in turn.clip]) for turn in turns if turn.clip]:
        inputs["videos"] = clips
    return inputs


def draw_questions(task: str, seed: int, count: int, words: Words, varied: bool) -> list[Question]:
    """Fresh questions of one task: plain, or worded and worn in all the ways of the training."""
    questions = []
    for number in range(count):
        rng = random.Random(f"evaluation/{seed}/{task}/{number}")
        sample = make_sample(rng, task, words=words)
        if varied:
            sample = worn(rng, sample)
        chat = vary(rng, sample) if varied else Chat((plain_turn(sample),))
        questions.append(Question(sample, chat))
    return questions


def evaluate(reader: Reader, questions: Sequence[Question]) -> Iterator[tuple[Question, str]]:
    """Each question with the answer it got; alike in length go together, so that little is padded."""
    ordered = sorted(questions, key=_weight)
    starts = range(0, len(ordered), BATCH)
    for start in track(starts, description=questions[0].sample.task):
        part = ordered[start : start + BATCH]
        yield from zip(part, reader.answer(part), strict=True)


def _weight(question: Question) -> int:
    """Pixels to look at."""
    pictures = [picture for turn in question.chat.turns for picture in (*turn.images, *(turn.clip or ()))]
    return sum(width * height for width, height in (smart_resize(picture.size) for picture in pictures))


def score(task: str, results: Sequence[tuple[Question, str]]) -> list[Score]:
    """Counts by the language of the question."""
    scores = []
    for language in ("en", "ar"):
        marks = [
            answer == question.chat.turns[-1].answer
            for question, answer in results
            if question.sample.language == language
        ]
        scores.append(Score(task, language, sum(marks), len(marks)))
    return scores


def markdown(scores: Sequence[Score]) -> str:
    """A table of tasks by language of the question."""
    lines = ["| task | asked in English | asked in Arabic | together |", "|---|---|---|---|"]
    for task in dict.fromkeys(entry.task for entry in scores):
        parts = [entry for entry in scores if entry.task == task]
        cells = [_cell(entry.right, entry.asked) for entry in parts]
        cells.append(_cell(sum(entry.right for entry in parts), sum(entry.asked for entry in parts)))
        lines.append(f"| {task} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(right: int, asked: int) -> str:
    return f"{right / asked:.1%} ({right} of {asked})" if asked else "none asked"


def write_into_card(table: str, name: str, card: Path = CARD) -> None:
    """Replace the table between the card's markers of this name."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = card.read_text(encoding="utf-8")
    before, rest = text.split(begin)
    _, after = rest.split(end)
    card.write_text(f"{before}{begin}\n{table}\n{end}{after}", encoding="utf-8")


def _print(scores: Sequence[Score], console: Console) -> None:
    table = Table("task", "question in", "right", "asked", "share")
    for entry in scores:
        share = f"{entry.right / entry.asked:.1%}" if entry.asked else "-"
        table.add_row(entry.task, entry.language, str(entry.right), str(entry.asked), share)
    console.print(table)


def measure(reader: Reader, options: argparse.Namespace, console: Console) -> list[Score]:
    """Ask the questions of every task, and show some of the mistakes."""
    words = load_words(options.words, held_out=True)
    if not words.english or not words.arabic:
        console.print("no dictionaries found (Debian: wamerican, hunspell-ar): made-up words take their place")
    scores: list[Score] = []
    for task in options.tasks:
        questions = draw_questions(task, options.seed, options.samples, words, options.varied)
        results = list(evaluate(reader, questions))
        scores += score(task, results)
        wrong = [entry for entry in results if entry[1] != entry[0].chat.turns[-1].answer]
        for question, answer in wrong[: options.mistakes]:
            console.print(f"{task}: {answer!r} instead of {question.chat.turns[-1].answer!r}", markup=False)
    return scores


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m server.demo.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL_DIR)
    parser.add_argument("--samples", type=int, default=300, help="questions of each task")
    parser.add_argument("--seed", type=int, default=20261123)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--words", type=Path, default=DICTIONARIES, help="folder with dict/ and hunspell/")
    parser.add_argument("--varied", action="store_true", help="also change wording, order and wear of the pictures")
    parser.add_argument("--mistakes", type=int, default=0, help="wrong answers of each task to print")
    parser.add_argument("--card", action="store_true", help="write the table into the model card")
    parser.add_argument("--json", type=Path, help="write the counts to this file")
    return parser.parse_args(arguments)


def main() -> None:
    """Ask, count, print; optionally write the card and a JSON file."""
    options, console = parse(), Console()
    reader = Reader(options.model, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    scores = measure(reader, options, console)
    _print(scores, console)
    if options.card:
        write_into_card(markdown(scores), "varied" if options.varied else "plain")
    if options.json:
        options.json.write_text(json.dumps([asdict(entry) for entry in scores], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
