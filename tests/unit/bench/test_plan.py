"""What a round consists of."""

from __future__ import annotations

from pathlib import Path

import pytest

from clients.bench import plan
from clients.bench.peers import EngineArguments
from clients.bench.plan import NAMES, Options, chosen_workloads, in_order, visits, worker_counts


@pytest.fixture(autouse=True)
def _no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_engine", lambda pixels: EngineArguments(Path(f"model-{pixels}")))


def made(**chosen: object) -> list[tuple[str, list[str]]]:
    options = Options(**{**chosen, "only": frozenset(chosen.get("only", NAMES))})  # type: ignore[arg-type]
    return [
        (f"{visit.peer.name}{visit.suffix}", [workload.name for workload in visit.workloads])
        for visit in visits(options)
    ]


def test_every_contender_gets_the_same_work() -> None:
    found = made(only={"text", "a4", "a4-full"}, rust=Path("vllm-rs"))
    capped, whole = ["text", "a4"], ["a4-full"]
    assert found == [
        *((name, capped) for name in ("ours", "vLLM", "Rust")),
        *((name, whole) for name in ("ours", "vLLM", "Rust")),
    ]


def test_pictures_that_repeat_go_to_a_server_with_a_cache() -> None:
    assert made(only={"text", "repeated"}) == [
        ("ours", ["text", "repeated"]),
        ("vLLM", ["text"]),
        ("vLLM", ["repeated"]),
    ]
    cached = visits(Options(frozenset({"repeated"})))
    assert ["--mm-processor-cache-gb" in visit.peer.command for visit in cached] == [False, True, False]


def test_a_start_alone_needs_no_work() -> None:
    assert made(only={"start"}) == [("ours", []), ("vLLM", [])]


def test_decode_workers_are_held_against_the_pages_of_the_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan.os, "sched_getaffinity", lambda _: {0, 1})
    assert made(only={"workers"}) == [
        ("ours", []),
        ("vLLM", ["pages"]),
        ("ours@1", ["pages"]),
        ("ours@2", ["pages"]),
    ]


def test_a_quick_round_asks_less() -> None:
    whole, quick = (chosen_workloads(visits(Options(quick=quick))) for quick in (False, True))
    assert [workload.name for workload in quick] == [workload.name for workload in whole]
    assert sum(workload.count for workload in quick) < sum(workload.count for workload in whole) / 2


def test_every_second_round_goes_the_other_way() -> None:
    found = visits(Options(frozenset({"text"})))
    assert [[visit.peer.name for visit in in_order(found, number)] for number in (1, 2, 3)] == [
        ["ours", "vLLM"],
        ["vLLM", "ours"],
        ["ours", "vLLM"],
    ]


@pytest.mark.parametrize(
    ("cores", "counts"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 4]), (12, [1, 2, 4, 8, 12])]
)
def test_workers_double_up_to_the_cores(cores: int, counts: list[int]) -> None:
    assert worker_counts(cores) == counts
