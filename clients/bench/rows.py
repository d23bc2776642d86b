"""The rows of the report: which figure, in which unit, and what it is held to."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clients.bench import workloads as work
from clients.bench.load import differing
from clients.bench.peers import OURS, RUST, VLLM
from clients.bench.plan import Measured, workers_suffix
from clients.bench.workloads import Sample

Rounds = Sequence[Mapping[str, Measured]]
"""What every contender did in every round."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of every contender. `goal` bounds ours/peer, from above unless `more_is_better`."""

    name: str
    unit: str
    workload: str
    """The key of the sample that the figure is taken from; empty for what is taken from none."""
    figure: Callable[[Measured], float]
    goal: float | None = None
    more_is_better: bool = False
    peer_workload: str = ""
    """The key of the peer's sample, where it is another."""
    peer_figure: Callable[[Measured], float] | None = None
    peer: str = VLLM


def rows(worker_counts: Sequence[int]) -> list[Row]:
    """Every row that there can be."""
    return [
        *_requests("text", work.TEXT, 0.5),
        *_requests("224x224 JPEG", work.THUMBNAIL, 0.5),
        *_requests("1080p JPEG", work.FULL_HD, 0.33),
        *_requests("A4 scan, capped", work.PAGE, 0.2),
        *_requests("1080p JPEG, all pixels", work.FULL_HD_WHOLE, 0.33),
        *_requests("A4 scan, all pixels", work.PAGE_WHOLE, 0.33),
        *_requests("A4 scan, the same again", work.REPEATED, None),
        _row("streamed token: CPU", "us", work.STREAM, lambda s: 1e6 * s.cpu_s / s.tokens, 0.5),
        _row("32 streams: tokens/s", "1/s", work.STREAM, lambda s: s.tokens / s.seconds, more_is_better=True),
        _row("time to first token: p50", "ms", work.TTFT, lambda s: 1e3 * percentile(s.first_s, 0.5)),
        _row("time to first token: p99", "ms", work.TTFT, lambda s: 1e3 * percentile(s.first_s, 0.99)),
        _row("A4 scans at once: pages/s", "1/s", work.PAGES, _rate, 5.0, more_is_better=True),
        *_workers(worker_counts),
        Row("start to ready", "s", "", lambda measured: _known(measured.ready_s), 0.5),
        Row("memory of the front end", "MiB", "", lambda measured: _known(measured.memory_mib)),
    ]


def _requests(name: str, workload: work.Workload, goal: float | None) -> Iterator[Row]:
    yield _row(f"{name}: CPU per request", "ms", workload, lambda s: 1e3 * s.cpu_s / s.requests, goal)
    yield _row(f"{name}: requests/s", "1/s", workload, _rate, more_is_better=True)


def _workers(counts: Sequence[int]) -> Iterator[Row]:
    pages = work.PAGES.name
    for count in counts:
        key = pages + workers_suffix(count)
        name = f"A4 scans at once: pages/s, decode workers: {count}"
        yield Row(name, "1/s", key, _of(key, _rate), None, True, pages, _of(pages, _rate))
    if len(counts) > 1:
        few, many = (pages + workers_suffix(count) for count in (counts[0], counts[-1]))
        name = f"pages/s of ours, decode workers: {counts[-1]} against {counts[0]}"
        yield Row(name, "1/s", many, _of(many, _rate), None, True, few, _of(few, _rate), OURS)


def _row(
    name: str,
    unit: str,
    workload: work.Workload,
    figure: Callable[[Sample], float],
    goal: float | None = None,
    *,
    more_is_better: bool = False,
) -> Row:
    return Row(name, unit, workload.name, _of(workload.name, figure), goal, more_is_better)


def _of(key: str, figure: Callable[[Sample], float]) -> Callable[[Measured], float]:
    return lambda measured: figure(measured.samples[key])


def _rate(sample: Sample) -> float:
    return sample.requests / sample.seconds


def _known(value: float | None) -> float:
    if value is None:
        raise KeyError
    return value


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that `share` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


# ---- Rows with figures in them


def filled(all_rows: Sequence[Row], rounds: Rounds) -> list[dict[str, Any]]:
    """The rows for which there are figures, as they are reported: medians over the rounds."""
    return [report for row in all_rows if (report := _filled(row, rounds)) is not None]


def _filled(row: Row, rounds: Rounds) -> dict[str, Any] | None:
    pairs = [
        (ours, peer)
        for measured in rounds
        if (ours := _figure(row.figure, measured.get(OURS))) is not None
        and (peer := _figure(row.peer_figure or row.figure, measured.get(row.peer))) is not None
    ]
    if not pairs:
        return None
    ours, peer = (statistics.median(figures) for figures in zip(*pairs, strict=True))
    ratio, ratios = ours / peer, [one / other for one, other in pairs]
    note = _difference(row, rounds)
    holds = row.goal is None or (ratio >= row.goal if row.more_is_better else ratio <= row.goal)
    report: dict[str, Any] = {
        "name": row.name,
        "ours": _rounded(ours),
        "peer": _rounded(peer),
        "ratio": _rounded(ratio),
        "unit": row.unit,
        "goal": row.goal,
        "holds": holds and not note,
        "more_is_better": row.more_is_better,
        "lowest_ratio": _rounded(min(ratios)),
        "highest_ratio": _rounded(max(ratios)),
    }
    rust = [_figure(row.figure, measured.get(RUST)) for measured in rounds]
    if known := [figure for figure in rust if figure is not None]:
        report["rust"] = _rounded(statistics.median(known))
    return {**report, "note": note} if note else report


def _figure(figure: Callable[[Measured], float], measured: Measured | None) -> float | None:
    """A figure of a contender; None where it was not measured."""
    try:
        return None if measured is None else figure(measured)
    except KeyError:
        return None


def _difference(row: Row, rounds: Rounds) -> str:
    """Says where the servers did not do the same work: other numbers of tokens, or other words."""
    for measured in rounds:
        ours = measured[OURS].samples.get(row.workload) if OURS in measured else None
        peer = measured[row.peer].samples.get(row.peer_workload or row.workload) if row.peer in measured else None
        if ours is not None and peer is not None and (count := differing(ours.answers, peer.answers)):
            return f"{count} of {len(ours.answers)} answers differ from the peer's"
    return ""


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
