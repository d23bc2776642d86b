"""What Qwen2.5-VL and Qwen3-VL do differently: they are told the time of a clip, each in its own way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from server.core import Clip, ClipSource, Message, Opened
from server.families import load_family
from server.families.family import Family, UnknownFamilyError
from tests.model import FOLDER
from tests.unit.families.test_qwen_vl import CONTROLS, clip, copy_of_the_model, picture

WHOLE = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
CLIP_SOURCE = ClipSource(("data:",), "messages[0].content[0]", is_file=True)
START, END, PAD = (CONTROLS[f"<|{name}|>"] for name in ("vision_start", "vision_end", "video_pad"))


def kind(folder: Path, model_type: str, side: int, **changes: Any) -> Family:
    config = {"model_type": model_type, "vision_config": {"patch_size": side}}
    return load_family(copy_of_the_model(folder, config=config, **changes))


@pytest.fixture
def qwen25(tmp_path: Path) -> Family:
    return kind(tmp_path, "qwen2_5_vl", 14)


@pytest.fixture
def qwen3(tmp_path: Path) -> Family:
    return kind(tmp_path, "qwen3_vl", 16)


def show(family: Family, shown: Clip) -> Any:
    return family.build_prompt([Message("user", (CLIP_SOURCE, "?"))], [Opened(CLIP_SOURCE, (shown,))])


def spelled(ids: list[int]) -> str:
    return WHOLE.decode(ids, skip_special_tokens=False)


# ---- Qwen2.5-VL


@pytest.mark.parametrize(("fps", "seconds"), [(2.0, 1.0), (1.0, 2.0), (8.0, 0.25), (0.5, 4.0)])
def test_qwen25_is_told_how_far_its_patches_are_apart_in_time(qwen25: Family, fps: float, seconds: float) -> None:
    (placed,) = show(qwen25, clip(3, fps=fps)).pictures
    assert placed.extras == {"second_per_grid_ts": seconds}
    assert (placed.length, placed.pad) == (3 * 4, None)


def test_qwen25_is_told_nothing_of_the_time_of_a_picture(qwen25: Family) -> None:
    prompt = qwen25.build_prompt([Message("user", (CLIP_SOURCE,))], [Opened(CLIP_SOURCE, (picture(),))])
    assert prompt.pictures[0].extras == {}


# ---- Qwen3-VL


def test_qwen3_reads_the_time_before_every_two_frames(qwen3: Family) -> None:
    prompt = show(qwen3, clip(2, 1, 2, fps=2.0, side=16))
    pads = "<|video_pad|>" * 2
    assert spelled(prompt.token_ids) == (
        "<|im_start|>user\n<|vision_start|>"
        f"<0.2 seconds><|vision_start|>{pads}<|vision_end|><1.2 seconds><|vision_start|>{pads}<|vision_end|>"
        "<|vision_end|>?<|im_end|>\n<|im_start|>assistant\n"
    )
    (placed,) = prompt.pictures
    run = prompt.token_ids[placed.offset : placed.offset + placed.length]
    assert spelled(run).startswith("<0.2 seconds>")
    assert (run[-1], prompt.token_ids[placed.offset - 1]) == (END, START)
    assert (placed.pad, run.count(PAD)) == (PAD, 4)
    assert placed.extras == {"timestamps": (0.25, 1.25)}


def test_qwen3_is_told_the_real_time_of_frames_where_it_is_known(qwen3: Family) -> None:
    shown = replace(clip(2, 1, 1, side=16), seconds=(10.0, 10.4, 12.0, 15.0))
    (placed,) = show(qwen3, shown).pictures
    assert placed.extras == {"timestamps": (10.2, 13.5)}


def test_qwen3_is_told_the_time_of_a_last_frame_that_is_shown_twice(qwen3: Family) -> None:
    shown = replace(clip(2, 1, 1, side=16), seconds=(10.0, 10.4, 12.0))
    assert show(qwen3, shown).pictures[0].extras == {"timestamps": (10.2, 12.0)}


def test_qwen3_has_no_system_message_of_its_own(qwen3: Family) -> None:
    spoken = [Message("system", ("Be brief.",)), Message("user", ("Hello",))]
    assert spelled(qwen3.build_prompt(spoken, []).token_ids).count("system") == 1
    assert spelled(qwen3.build_prompt(spoken[1:], []).token_ids).startswith("<|im_start|>user\nHello<|im_end|>\n")


def test_qwen3s_frames_may_be_as_large_as_its_pictures(tmp_path: Path) -> None:
    """Its settings for clips speak of all frames together."""
    settings = {"size": {"shortest_edge": 4096, "longest_edge": 25_165_824}}
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(settings))
    family = kind(tmp_path, "qwen3_vl", 16)
    assert family.max_frame_pixels == family.max_pixels


TEMPLATE = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"


def test_a_model_that_always_thinks_begins_so(tmp_path: Path) -> None:
    document = json.loads((FOLDER / "tokenizer.json").read_text(encoding="utf-8"))
    think = {**document["added_tokens"][0], "id": 987, "content": "<think>", "special": False}
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    family = kind(tmp_path, "qwen3_vl", 16, tokenizer={"added_tokens": [*document["added_tokens"], think]})
    ids = family.build_prompt([Message("user", ("<think>",))], []).token_ids
    assert ids.count(987) == 1
    assert ids[-2:] == [987, *WHOLE.encode("\n").ids]


def test_a_model_that_thinks_without_a_token_for_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    with pytest.raises(UnknownFamilyError, match="no control token <think>"):
        kind(tmp_path, "qwen3_vl", 16)
