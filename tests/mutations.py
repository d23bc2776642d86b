"""Breaks the server on purpose, one fault at a time, and requires that the tests notice.

    python -m tests.mutations

Every fault is put into a copy of the repository, where the unit tests of the broken room and then end-to-end tests on
the real engine run. A fault that no test notices, or that only unit tests notice where the real engine must, survives,
and the command fails. First the same tests run on an unbroken copy, since otherwise a failure would prove nothing.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
COPIED: Final = ("server", "tests", "pyproject.toml")
DEADLINE_S: Final = 600

SHAPES: Final = "tests/e2e/test_seeing.py::test_names_shapes_colours_and_places[en-whole]"
COLOURS: Final = "tests/e2e/test_seeing.py::test_tells_every_colour_from_the_others"
SIDES: Final = "tests/e2e/test_seeing.py::test_wide_and_tall_pictures_keep_their_proportions"
NUMBERS: Final = "tests/e2e/test_seeing.py::test_reads_numbers[en]"
UPRIGHT: Final = "tests/e2e/test_seeing.py::test_a_photograph_is_seen_upright"
ON_WHITE: Final = "tests/e2e/test_seeing.py::test_transparency_is_seen_on_white"
PAIRS: Final = "tests/e2e/test_order.py::test_swapping_the_pictures_swaps_the_answer"
CLIPS: Final = "tests/e2e/test_clips.py::test_a_film_is_seen[mp4-libx264]"
REFERENCE: Final = "tests/e2e/test_fidelity.py::test_answers_are_those_of_transformers"
BUDGETS: Final = "tests/e2e/test_fidelity.py::test_a_budget_sets_the_tokens_of_a_picture"
PROMPTS: Final = "tests/e2e/test_fidelity.py::test_prompt_tokens_are_the_processors"
TYPED: Final = "tests/e2e/test_fidelity.py::test_typed_control_tokens_stay_text"

MEDIA: Final = "tests/unit/media"
FAMILIES: Final = "tests/unit/families"


@dataclass(frozen=True)
class Mutation:
    """A fault: in `file` the text `old`, which occurs there once, becomes `new`."""

    name: str
    file: str
    old: str
    new: str
    unit: str
    e2e: tuple[str, ...]


PIXELS, PATCHES, WORK = "server/media/pixels.py", "server/media/decoding/patches.py", "server/media/workers/work.py"
DECODE, FAMILY = "server/media/decoding/decode.py", "server/families/qwen_vl.py"
GATHER = "[..., 0].transpose(2, 0, 3, 1)"
SIZE = "height, width = target_size(picture.height, picture.width, job.budget, limits.pixels, param=job.param)"
RESIZED = "resize(picture.pixels(height, width), height, width)[np.newaxis]"

MUTATIONS: Final = (
    Mutation("patch order: columns before rows", PATCHES, GATHER, "[..., 0].transpose(2, 3, 0, 1)", MEDIA, (SHAPES,)),
    Mutation(
        "patches: rows and columns swapped",
        PATCHES,
        "into[:, :, place] = pixels",
        "into[:, :, place] = pixels.reshape(-1, 3, patch, patch).swapaxes(2, 3).reshape(pixels.shape)",
        MEDIA,
        (NUMBERS,),
    ),
    Mutation(
        "channels: red and blue swapped",
        WORK,
        RESIZED,
        "resize(picture.pixels(height, width), height, width)[np.newaxis, ..., ::-1]",
        MEDIA,
        (COLOURS, SHAPES),
    ),
    Mutation(
        "pictures: first and second swapped",
        "server/media/prepare.py",
        "zip(checked, pictures, strict=True)]",
        "zip(checked, reversed(pictures), strict=True)]",
        MEDIA,
        (PAIRS,),
    ),
    Mutation(
        "pictures: swapped on the way to the engine",
        "server/engine/inputs.py",
        "for placed in prompt.pictures:\n        modality",
        "for placed in reversed(prompt.pictures):\n        modality",
        "tests/unit/engine",
        (PAIRS,),
    ),
    Mutation(
        "clips: frames backwards",
        WORK,
        "frames, original, fps, seconds = clip.frames,",
        "frames, original, fps, seconds = clip.frames[::-1],",
        MEDIA,
        (CLIPS,),
    ),
    Mutation(
        "resize: height and width swapped",
        WORK,
        SIZE,
        SIZE.replace("height, width =", "width, height =", 1),
        MEDIA,
        (SIDES, NUMBERS),
    ),
    Mutation(
        "resize: to half the size",
        WORK,
        SIZE,
        SIZE.replace("(picture.height, picture.width,", "(picture.height // 2 + 1, picture.width // 2 + 1,"),
        MEDIA,
        (BUDGETS,),
    ),
    Mutation(
        "resize: nearest",
        "server/media/decoding/resize.py",
        'mode="bicubic", antialias=True',
        'mode="nearest"',
        MEDIA,
        (REFERENCE,),
    ),
    Mutation(
        "resize: rounded up", PIXELS, "round(width / factor)", "math.ceil(width / factor)", MEDIA, (BUDGETS, PROMPTS)
    ),
    Mutation(
        "placeholders: one token too early",
        FAMILY,
        "offset, length = len(ids),",
        "offset, length = len(ids) - 1,",
        FAMILIES,
        (REFERENCE,),
    ),
    Mutation("photographs: not turned", DECODE, "if orientation == 1:", "if orientation:", MEDIA, (UPRIGHT,)),
    Mutation("transparency: on black", DECODE, "(255, 255, 255))", "(0, 0, 0))", MEDIA, (ON_WHITE,)),
    Mutation(
        "control tokens: typed ones are real",
        "server/families/text.py",
        'document["added_tokens"] = []\n',
        "\n",
        FAMILIES,
        (TYPED,),
    ),
    Mutation(
        "template: no default system message",
        FAMILY,
        'and (not messages or messages[0].role != "system"):',
        "and not messages:",
        FAMILIES,
        (PROMPTS,),
    ),
)


@dataclass(frozen=True)
class Verdict:
    """What the tests said to a fault."""

    name: str
    unit: tuple[str, ...]
    e2e: tuple[str, ...]
    seconds: float

    @property
    def caught(self) -> bool:
        """Every fault here reaches what the model is given, so the real engine must show it."""
        return bool(self.e2e)


def main() -> int:
    """Run all mutations, or those named; the exit status."""
    options = _options()
    chosen = [mutation for mutation in MUTATIONS if options.only in mutation.name]
    if not chosen:
        print(f"No mutation is called {options.only!r}. There are: {', '.join(one.name for one in MUTATIONS)}")
        return 2
    if not options.trust and not _unbroken_passes(chosen):
        return 1
    verdicts = []
    for mutation in chosen:
        verdicts.append(_try(mutation))
        print(_row(verdicts[-1]), flush=True)
    survivors = [verdict.name for verdict in verdicts if not verdict.caught]
    print(f"\n{len(verdicts) - len(survivors)} of {len(verdicts)} faults were noticed on the real engine")
    for name in survivors:
        print(f"SURVIVED: {name}")
    return 1 if survivors else 0


def _unbroken_passes(chosen: Sequence[Mutation]) -> bool:
    """Whether all tests in use pass without a fault."""
    tests = sorted({test for mutation in chosen for test in (mutation.unit, *mutation.e2e)})
    with tempfile.TemporaryDirectory(prefix="ain-unbroken-") as folder:
        copy = _copy(Path(folder))
        failed = _failures(copy, tests)
    print(
        f"unbroken: {len(tests)} selections, {'all pass' if not failed else 'FAILED: ' + ', '.join(failed)}", flush=True
    )
    return not failed


def _try(mutation: Mutation) -> Verdict:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ain-broken-") as folder:
        copy = _copy(Path(folder))
        break_it(copy / mutation.file, mutation.old, mutation.new)
        unit = _failures(copy, [mutation.unit])
        e2e = _failures(copy, mutation.e2e)
    return Verdict(mutation.name, unit, e2e, time.monotonic() - started)


def break_it(file: Path, old: str, new: str) -> None:
    """Put the fault in. Raises ValueError where the code has changed so that it does not fit any more."""
    source = file.read_text(encoding="utf-8")
    if source.count(old) != 1:
        raise ValueError(f"{file.name} holds {old!r} {source.count(old)} times; bring tests/mutations.py up to date")
    file.write_text(source.replace(old, new), encoding="utf-8")


def _copy(folder: Path) -> Path:
    ignore = shutil.ignore_patterns("__pycache__", ".*")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignore)
        else:
            shutil.copy(source, folder / name)
    return folder


def _failures(copy: Path, tests: Sequence[str]) -> tuple[str, ...]:
    """The names of the tests that fail in this copy."""
    present = [test for test in tests if (copy / test.partition("::")[0]).exists()]
    if not present:
        return ()
    command = [sys.executable, "-m", "pytest", *present, "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider"]
    ran = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    failed = re.findall(r"^(?:FAILED|ERROR) \S*?(?:::)?(\w+(?:\[.*?\])?)(?: - .*)?$", ran.stdout, re.MULTILINE)
    if ran.returncode not in (0, 1) or (ran.returncode == 1 and not failed):
        raise RuntimeError(f"pytest could not run in {copy}:\n{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}")
    return tuple(failed)


def _row(verdict: Verdict) -> str:
    def named(tests: Sequence[str]) -> str:
        kinds = sorted({test.partition("[")[0] for test in tests})
        return f"{len(tests)} ({', '.join(kinds[:3])}{', ...' if len(kinds) > 3 else ''})" if tests else "none"

    state = "caught" if verdict.caught else "SURVIVED"
    return (
        f"{state:8} {verdict.name} ({verdict.seconds:.0f} s)\n"
        f"         on the real engine: {named(verdict.e2e)}\n"
        f"         by unit tests:      {named(verdict.unit)}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="run only the mutations whose name holds this")
    parser.add_argument("--trust", action="store_true", help="skip the run on the unbroken copy")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
