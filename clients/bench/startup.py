"""How long a start takes: ours against `python -m vllm.entrypoints.openai.api_server`, alternating, on the CPU engine.

    python -m clients.bench.startup --rounds 5

Measured from the start of the process to the first ready answer, and to the first answer about a picture. Prints a
table and writes build/startup.json: a list of {"name", "ours", "peer", "ratio", "unit", "goal", "holds"}.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import statistics
import time
from pathlib import Path

import httpx
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

from clients.bench import peers
from clients.bench.peers import MODEL_NAME, EngineArguments, Peer, end_servers_on_sigterm, question, running

GOAL_SECONDS = 60.0
GOAL_RATIO = 0.5
REPORT = Path("build/startup.json")
DEADLINE_S = 600.0


def main() -> int:
    """Run the bench; the exit status is 0 where all goals hold."""
    arguments = _arguments()
    end_servers_on_sigterm()
    engine = EngineArguments(arguments.model)
    ours, theirs = peers.ours(engine), peers.vllm(engine)
    times: dict[str, list[tuple[float, float]]] = {ours.name: [], theirs.name: []}
    console = Console()
    for number in range(1, arguments.rounds + 1):
        for peer in (ours, theirs) if number % 2 else (theirs, ours):
            times[peer.name].append(_time_start(peer))
            ready, answered = times[peer.name][-1]
            console.print(f"round {number}: {peer.name:5} ready after {ready:6.1f} s, answered after {answered:6.1f} s")
    rows = _rows(times[ours.name], times[theirs.name])
    _print(console, rows)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    return 0 if all(row["holds"] for row in rows) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m clients.bench.startup", description=(__doc__ or "").split("\n")[0])
    bundled = Path(__file__).parents[2] / "server" / "demo" / "model"
    parser.add_argument("--model", type=Path, default=bundled, help="folder of the model (default: the demo model)")
    parser.add_argument("--rounds", type=int, default=5, help="starts of each server (default: 5)")
    return parser.parse_args()


def _time_start(peer: Peer) -> tuple[float, float]:
    """Seconds from the process's start to ready, and to the answer to a first picture."""
    started = time.perf_counter()
    with running(peer, DEADLINE_S) as server:
        body = {"model": MODEL_NAME, "messages": question(_picture(), "Describe this image."), "max_tokens": 16}
        httpx.post(f"{server.address}/v1/chat/completions", json=body, timeout=DEADLINE_S).raise_for_status()
        return server.seconds, time.perf_counter() - started


def _picture() -> str:
    image = Image.new("RGB", (112, 112), (250, 250, 245))
    ImageDraw.Draw(image).ellipse((14, 14, 46, 46), fill=(220, 40, 40))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _rows(ours: list[tuple[float, float]], theirs: list[tuple[float, float]]) -> list[dict[str, object]]:
    ready = statistics.median(time for time, _ in ours), statistics.median(time for time, _ in theirs)
    answer = statistics.median(time for _, time in ours), statistics.median(time for _, time in theirs)
    first, rest = ours[0][0], [time for time, _ in ours[1:]]
    rows = [
        _row("start to ready", *ready, GOAL_RATIO),
        _row("start to first picture answered", *answer, GOAL_RATIO),
        {**_row("start to ready, seconds", *ready, 0), "goal": GOAL_SECONDS, "holds": ready[0] <= GOAL_SECONDS},
    ]
    if rest:
        # The fastest later start: whatever else the machine does can only slow one down.
        rows.append(_row("a later start against the first", min(rest), first, 1.1))
    return rows


def _row(name: str, ours: float, peer: float, goal: float) -> dict[str, object]:
    ratio = ours / peer
    figures = {"ours": round(ours, 1), "peer": round(peer, 1), "ratio": round(ratio, 3)}
    return {"name": name, **figures, "unit": "s", "goal": goal, "holds": ratio <= goal}


def _print(console: Console, rows: list[dict[str, object]]) -> None:
    columns = ("name", "ours", "peer", "ratio", "unit", "goal", "holds")
    table = Table(*columns, title="Start-up, medians")
    for row in rows:
        table.add_row(*(str(row[column]) for column in columns))
    console.print(table)


if __name__ == "__main__":
    raise SystemExit(main())
