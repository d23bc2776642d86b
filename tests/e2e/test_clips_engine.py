"""Clips and pictures on their way into the real engine: what vLLM's own processors make, and what the model then sees.

All of it runs once, in a process of its own, which has the engine in it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ENOUGH = 0.9
"""Share of whole answers that must be right, letter by letter."""


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What `engine_child` found."""
    # The path of a socket has at most 107 bytes, more than pytest's own folders leave.
    with tempfile.TemporaryDirectory(prefix="ain-") as scratch:
        command = [sys.executable, "-m", "tests.e2e.engine_child", scratch]
        ended = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=500, cwd=Path(__file__).parents[2]
        )
        log = Path(scratch) / "engine.log"
        words = log.read_text(encoding="utf-8", errors="replace")[-3000:] if log.exists() else ""
    assert ended.returncode == 0, f"{ended.stderr[-3000:]}\n{words}"
    answer: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize("family", ["QWEN2_VL", "QWEN2_5_VL", "QWEN3_VL", "INTERNVL"])
def test_an_input_is_what_vllms_own_processor_makes(found: dict[str, Any], family: str) -> None:
    assert len(found[family]) > 8
    assert [name for name, same in found[family].items() if not same] == []


def share(pairs: list[tuple[str, str]]) -> float:
    return sum(said == right for said, right in pairs) / len(pairs)


def test_the_model_sees_which_way_a_shape_moves(found: dict[str, Any]) -> None:
    pairs = found["demo"]["answers"]["clips"]
    assert share(pairs) >= ENOUGH, pairs


def test_a_clip_that_stands_still_is_seen_as_its_picture(found: dict[str, Any]) -> None:
    pairs = found["demo"]["answers"]["pictures as clips"]
    assert share(pairs) >= ENOUGH, pairs


def test_a_clip_and_a_picture_are_told_apart_by_their_places(found: dict[str, Any]) -> None:
    """Asked for what the first or the second shows, or what they have in common."""
    pairs = found["demo"]["answers"]["pairs"]
    assert share(pairs) >= ENOUGH, pairs


def test_a_clip_longer_than_the_engine_has_room_for_is_refused_and_harms_nobody(found: dict[str, Any]) -> None:
    assert found["demo"]["too long"].startswith("context_length_exceeded: A video takes 3200 tokens, more than the ")
    assert found["demo"]["after"] == "Hello! Show me a picture."


def test_an_answer_that_is_not_streamed_comes_in_two_pieces_and_is_the_same(found: dict[str, Any]) -> None:
    words, pieces, tokens = found["demo"]["whole"]
    streamed_words, streamed_pieces, streamed_tokens = found["demo"]["parts"]
    assert (words, tokens) == (streamed_words, streamed_tokens)
    assert pieces <= 2 < streamed_pieces
