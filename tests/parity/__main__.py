"""Compares the server's answers with the Quick Start's and fails under 99 % agreement.

    python -m tests.parity --cases 120 --model demo

Prints every disagreement with both texts and with the lead that the reference's token had where they part: a lead near
zero means that rounding decides, a clear one means a fault. Writes build/parity.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch

from server.engine.checkpoint import find_checkpoint
from tests.e2e.asking import Client
from tests.parity.cases import Case, cases
from tests.parity.reference import Reference, Said
from tests.serving import serve

LEAST_AGREEMENT: Final = 0.99
MAX_TOKENS: Final = 96
DTYPES: Final = {"bfloat16": torch.bfloat16, "float32": torch.float32}
BUILD: Final = Path("build")


@dataclass(frozen=True)
class Outcome:
    """One conversation, answered twice."""

    case: str
    expected: str
    answered: str
    expected_prompt_tokens: int
    prompt_tokens: int
    margin: float
    """The least lead of any token of the reference."""
    parting_margin: float | None
    """The lead of the reference's token where the texts part; None where they agree."""

    @property
    def agrees(self) -> bool:
        return self.expected == self.answered


def main() -> int:
    """Run the comparison; the exit status."""
    options = _options()
    folder = find_checkpoint(options.model, None, BUILD, print)
    started = time.monotonic()
    asked = list(cases(options.cases, options.seed))
    # One after the other: both at once would fight for the cores.
    reference = Reference(folder, DTYPES[options.reference_dtype])
    expected = []
    for case in asked:
        expected.append(reference.say(case.messages, MAX_TOKENS))
        _progress("transformers", len(expected), len(asked))
    outcomes = []
    with serve("--model", options.model, *(["--dtype", options.dtype] if options.dtype else [])) as server:
        client = Client(server)
        with client.http:
            for case, said in zip(asked, expected, strict=True):
                outcomes.append(compare(case, said, client))
                _progress("server", len(outcomes), len(asked))
    return report(outcomes, options, time.monotonic() - started)


def compare(case: Case, said: Said, client: Client) -> Outcome:
    """Ask the server what the reference has answered."""
    reply = client.ask(messages=case.messages, max_tokens=MAX_TOKENS)
    parting = None if reply.text == said.text else said.margin_where_differs(reply.text)
    return Outcome(case.name, said.text, reply.text, said.prompt_tokens, reply.prompt_tokens, said.margin, parting)


def report(outcomes: list[Outcome], options: argparse.Namespace, seconds: float) -> int:
    """Say how it went, on the terminal and in build/parity.json; the exit status."""
    agreeing = sum(outcome.agrees for outcome in outcomes)
    share = agreeing / len(outcomes)
    miscounted = [outcome for outcome in outcomes if outcome.prompt_tokens != outcome.expected_prompt_tokens]
    print(f"Answers agree in {agreeing} of {len(outcomes)} cases, {share:.1%}; {seconds:.0f} s")
    print(f"Prompt tokens agree in {len(outcomes) - len(miscounted)} of {len(outcomes)} cases")
    for outcome in outcomes:
        if not outcome.agrees:
            print(f"{outcome.case}: they part where the reference's token led by {outcome.parting_margin:.3f}")
            print(f"  reference  {outcome.expected!r}\n  server     {outcome.answered!r}")
    for outcome in miscounted:
        print(f"{outcome.case}: {outcome.prompt_tokens} prompt tokens, not {outcome.expected_prompt_tokens}")
    print(f"Different answers among the reference's: {len(Counter(outcome.expected for outcome in outcomes))}")
    BUILD.mkdir(exist_ok=True)
    document = {
        "model": options.model,
        "reference_dtype": options.reference_dtype,
        "seed": options.seed,
        "cases": len(outcomes),
        "agreement": share,
        "prompt_tokens_agreement": 1 - len(miscounted) / len(outcomes),
        "seconds": round(seconds, 1),
        "outcomes": [asdict(outcome) for outcome in outcomes],
    }
    path = BUILD / "parity.json"
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"All answers: {path}")
    return 0 if share >= LEAST_AGREEMENT and not miscounted else 1


def _progress(who: str, done: int, count: int) -> None:
    if sys.stderr.isatty() or done % 40 == 0 or done == count:
        print(f"{who}: {done} of {count}", end="\r" if sys.stderr.isatty() and done < count else "\n", file=sys.stderr)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=120, help="how many conversations (default: 120)")
    parser.add_argument("--seed", type=int, default=1, help="which conversations (default: 1)")
    parser.add_argument("--model", default="demo", help="the model to compare on, as for the server (default: demo)")
    parser.add_argument(
        "--reference-dtype",
        choices=DTYPES,
        default="bfloat16",
        help="the reference's number format (default: bfloat16, that of the checkpoint and so of the server)",
    )
    parser.add_argument("--dtype", help="the server's number format (default: the checkpoint's)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
