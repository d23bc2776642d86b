"""How far vLLM is with loading, read from what it writes to its log."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from server.engine import loading
from server.engine.loading import follow, latest_stage


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("Loading safetensors checkpoint shards:  50% Completed | 2/4 [00:01<00:01]", "weights, file 2/4"),
        ("INFO default_loader.py: Loading weights took 3.21 seconds", "weights read in 3.21 s"),
        ("torch.compile took 12.5 s in total", "compiled in 12.5 s"),
        ("Capturing CUDA graphs (mixed): 10%|# | 3/67 [00:01]", "CUDA graphs, 3/67"),
        ("Graph capturing finished in 21 secs, took 0.5 GiB", "CUDA graphs captured in 21 s"),
        ("GPU KV cache size: 991,668 tokens", "KV cache of 991,668 tokens"),
        ("something else", None),
        ("", None),
    ],
)
def test_telling_lines_are_told(line: str, told: str | None) -> None:
    assert latest_stage(line) == told


def test_the_last_telling_line_counts_also_in_a_bar_that_redraws_itself() -> None:
    bar = "".join(f"\rLoading safetensors checkpoint shards: x| {done}/4 [" for done in range(4))
    assert latest_stage(f"KV cache size: 5 tokens\n{bar}\nnothing new\n") == "weights, file 3/4"


async def test_only_what_is_written_from_now_on_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "LOOK_EVERY_S", 0.005)
    log, told = tmp_path / "log", list[str]()
    log.write_text("KV cache size: 1 tokens\n")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow, log, told.append)
        await anyio.sleep(0.03)
        with log.open("a") as writer:
            writer.write("KV cache size: 2 tokens\n")
        await anyio.sleep(0.1)
        tasks.cancel_scope.cancel()
    assert told == ["KV cache of 2 tokens"]


async def test_a_log_that_is_not_there_yet_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "LOOK_EVERY_S", 0.005)
    told = list[str]()
    with anyio.move_on_after(0.03):
        await follow(tmp_path / "nowhere", told.append)
    assert told == []
