"""From samples to the rows of the report."""

from __future__ import annotations

import pytest

from clients.bench import workloads as work
from clients.bench.load import Answer
from clients.bench.peers import OURS, RUST, VLLM
from clients.bench.plan import Measured
from clients.bench.rows import Rounds, filled, percentile, rows
from clients.bench.workloads import Sample

SAID = Answer(200, 11, 2, "Two words")


def sample(cpu_s: float, answers: tuple[Answer, ...] = (SAID, SAID), seconds: float = 1.0) -> Sample:
    return Sample(len(answers), seconds, cpu_s, 0.01, (0.1, 0.3), answers)


def texts(*cpu: tuple[float, float]) -> Rounds:
    """Rounds in which both contenders answered texts with so many CPU seconds."""
    return [{OURS: Measured({"text": sample(ours)}), VLLM: Measured({"text": sample(theirs)})} for ours, theirs in cpu]


def test_medians_over_rounds_are_compared() -> None:
    row = filled(rows([1]), texts((0.1, 1.0), (0.4, 1.0), (9.0, 1.0)))[0]
    assert row["name"] == "text: CPU per request"
    assert (row["ours"], row["peer"], row["ratio"], row["unit"]) == (200.0, 500.0, 0.4, "ms")
    assert (row["lowest_ratio"], row["highest_ratio"]) == (0.1, 9.0)
    assert (row["goal"], row["holds"]) == (0.5, True)


def test_a_goal_that_is_missed_is_said() -> None:
    assert filled(rows([1]), texts((0.6, 1.0)))[0]["holds"] is False


def test_what_was_not_measured_has_no_row() -> None:
    names = [row["name"] for row in filled(rows([1]), texts((0.1, 1.0)))]
    assert names == ["text: CPU per request", "text: requests/s"]
    assert filled(rows([1]), [{OURS: Measured({"text": sample(1.0)})}]) == []
    assert filled(rows([1]), []) == []


def test_a_round_that_broke_off_counts_for_what_it_has() -> None:
    rounds = [*texts((0.1, 1.0)), {OURS: Measured({"text": sample(5.0)})}]
    assert filled(rows([1]), rounds)[0]["ours"] == 50.0


def test_other_work_than_the_peer_s_never_holds() -> None:
    shorter = Answer(200, 10, 2, "Two words")
    rounds = [{OURS: Measured({"text": sample(0.1, (SAID, shorter))}), VLLM: Measured({"text": sample(1.0)})}]
    row = filled(rows([1]), rounds)[0]
    assert (row["holds"], row["note"]) == (False, "1 of 2 answers differ from the peer's")


def test_the_third_contender_is_shown_beside() -> None:
    rounds = [{**texts((0.1, 1.0))[0], RUST: Measured({"text": sample(0.3)})}]
    assert filled(rows([1]), rounds)[0]["rust"] == 150.0


def test_more_pages_a_second_are_better() -> None:
    slow, fast = sample(1.0, seconds=1.0), sample(1.0, seconds=0.1)
    rounds = [{OURS: Measured({"pages": fast}), VLLM: Measured({"pages": slow})}]
    row = filled(rows([1]), rounds)[0]
    assert (row["name"], row["ratio"], row["goal"], row["holds"]) == ("A4 scans at once: pages/s", 10.0, 5.0, True)


def test_decode_workers_are_compared_with_the_peer_and_with_each_other() -> None:
    ours = {"pages@1": sample(1.0, seconds=0.5), "pages@2": sample(1.0, seconds=0.25)}
    rounds = [{OURS: Measured(ours), VLLM: Measured({"pages": sample(1.0)})}]
    found = {row["name"]: (row["ratio"], row["goal"]) for row in filled(rows([1, 2]), rounds)}
    assert found == {
        "A4 scans at once: pages/s, decode workers: 1": (2.0, None),
        "A4 scans at once: pages/s, decode workers: 2": (4.0, None),
        "pages/s of ours, decode workers: 2 against 1": (2.0, None),
    }


def test_starts_and_memory_are_taken_from_the_visit() -> None:
    rounds = [{OURS: Measured(ready_s=10.0, memory_mib=300.0), VLLM: Measured(ready_s=30.0, memory_mib=600.0)}]
    found = {row["name"]: row["ratio"] for row in filled(rows([1]), rounds)}
    assert found == {"start to ready": 0.3333, "memory of the front end": 0.5}


def test_every_workload_has_a_row_and_every_name_is_its_own() -> None:
    all_rows = rows([1, 2])
    assert {row.workload for row in all_rows} >= {workload.name for workload in work.ALL}
    assert len({row.name for row in all_rows}) == len(all_rows)


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1), (0.0, 1), (0.995, 100)])
def test_percentiles_are_values_that_came(share: float, value: int) -> None:
    assert percentile(list(range(100, 0, -1)), share) == value
