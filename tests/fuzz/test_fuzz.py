"""A few hundred damaged files, always the same; `python -m tests.fuzz` tries as many as there is time for."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from random import Random
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.child import Child
from tests.fuzz.damage import damaged
from tests.fuzz.seeds import Kind, Seed, seeds

SEEDS = seeds()


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    with Child() as child:
        yield child


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed.name)
def test_a_file_without_damage_is_decoded(seed: Seed, child: Child) -> None:
    assert child.judge(seed.kind, seed.data).fate == "decoded"


@pytest.mark.parametrize("kind", get_args(Kind))
def test_damaged_files_are_decoded_or_refused_by_name(kind: Kind, child: Child) -> None:
    files = [seed.data for seed in SEEDS if seed.kind == kind]

    @settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(file=st.sampled_from(files), chance=st.randoms(use_true_random=False))
    def check(file: bytes, chance: Random) -> None:
        verdict = child.judge(kind, damaged(file, files, chance))
        assert verdict.fate != "fault", verdict.detail

    check()


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("data", [b"", b"\0", b"\xff" * 5000, b"GIF89a", b"%PDF-", b"\0\0\0\x18ftypisom"])
def test_files_of_nothing_much_are_refused(kind: Kind, data: bytes, child: Child) -> None:
    assert child.judge(kind, data).fate == "refused"


def test_the_child_tells_a_fault_from_a_refusal_and_goes_on(child: Child) -> None:
    assert child.judge("picture", b"").detail == "empty_image_file"
    fault = child.judge("riddle", b"")  # type: ignore[arg-type]
    assert fault.fate == "fault"
    assert "KeyError" in fault.detail
    assert child.judge("picture", SEEDS[0].data).fate == "decoded"


def test_the_child_outlives_a_crash_of_its_process() -> None:
    with Child() as child:
        child.process().send_signal(signal.SIGSEGV)
        verdict = child.judge("picture", SEEDS[0].data)
        assert verdict.fate == "fault"
        assert "SIGSEGV" in verdict.detail
        assert child.judge("picture", SEEDS[0].data).fate == "decoded"
