"""An hour of pictures, no two alike: the server's memory, descriptors and shared memory stay what they are.

Both caches are small, and full before anything is measured: what grows then is a leak. Every fourth picture is fetched
from a host that allows it to be kept, so that the cache of fetched files fills, too.
"""

from __future__ import annotations

import contextlib
import http.server
import itertools
import math
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import psutil

from clients.bench.bodies import PICTURES
from clients.bench.cpu import front_end, memory_mib
from clients.bench.model import CAPPED_PIXELS, make_model
from clients.bench.peers import MODEL_NAME, question
from tests.drills.drill import Figure, Plan, at_most, exactly, told
from tests.drills.load_bodies import DIGITS, MARK, Template, picture_template, request_template, with_comment
from tests.drills.load_client import Load, keep_asking, run
from tests.drills.overload import CONTEXT, MODELS, flags
from tests.serving import Server, serve

CACHES: Final = ("--media-cache-mib", "16", "--fetch-cache-mib", "4")
CALLERS: Final = 6
WARM_UP: Final = 0.25
"""Of the time: caches fill, and the allocator takes what it will need."""
SAMPLE_S: Final = 1.0
HOUR_S: Final = 3600.0
SHORT_GROWTH_MIB: Final = 32.0
"""So short a time says nothing about an hour, but it shows what keeps every picture: there are 100 MiB of them."""
GROWTH_MIB: Final = 2.0
"""Of shared memory: less than one picture."""
SHORT_SHARED_MIB: Final = 16.0
"""Of shared memory, as long as the engine has not been through all of its own."""
DESCRIPTORS: Final = 8
"""Connections come and go with the pictures that are fetched."""
SHARED = re.compile(r"/dev/shm/\S+|/memfd:\S+")


@dataclass
class Samples:
    """What was read from the operating system, again and again, while the server worked."""

    at: list[float] = field(default_factory=list)
    """Seconds since the beginning."""
    front_mib: list[float] = field(default_factory=list)
    """Memory of the front end, decode workers included; what is shared counts in parts."""
    main_mib: list[float] = field(default_factory=list)
    """Resident memory of the server's first process."""
    descriptors: list[float] = field(default_factory=list)
    shared_mib: list[float] = field(default_factory=list)
    """Files in shared memory that any of the server's processes has mapped or open."""

    def take(self, server: Server, began: float) -> None:
        """Read everything once."""
        root = server.process.pid
        self.at.append(time.monotonic() - began)
        self.front_mib.append(memory_mib(root))
        self.main_mib.append(psutil.Process(root).memory_info().rss / (1 << 20))
        self.descriptors.append(sum(one.num_fds() for one in front_end(root)))
        self.shared_mib.append(_shared_mib(server))

    def after(self, seconds: float) -> Samples:
        """Without the first seconds."""
        first = sum(at < seconds for at in self.at)
        lists = (self.at, self.front_mib, self.main_mib, self.descriptors, self.shared_mib)
        return Samples(*(values[first:] for values in lists))


def soak(plan: Plan) -> Iterator[Figure]:
    """An hour; the short form is long enough to see what leaks with every request."""
    return soaked(plan.size(3600, 24), short=plan.short)


def soaked(seconds: float, *, short: bool = False) -> Iterator[Figure]:
    """The drill for so many seconds; growth is told for an hour, however long it was."""
    with _host() as address, serve(*_flags(address), model=MODEL_NAME) as server:
        load, samples = _work(server, _templates(address), seconds)
        late = server.metric("ain_media_jobs_total")
    kept = samples.after(WARM_UP * seconds)
    yield told("soak/seconds", load.seconds, "s")
    yield told("soak/pictures", late)
    yield told("soak/answers", load.goodput, "/s")
    yield exactly("soak/failures", sum(not one.whole for one in load.asked if one.done < load.ended), 0)
    yield told("soak/front-end", kept.front_mib[-1], "MiB")
    yield told("soak/main", kept.main_mib[-1], "MiB")
    for name, values in (("front-end", kept.front_mib), ("main", kept.main_mib)):
        if short:
            yield at_most(f"soak/{name}-growth", growth(values), SHORT_GROWTH_MIB, "MiB")
        else:
            yield told(f"soak/{name}-growth", growth(values), "MiB")
            yield at_most(f"soak/{name}-slope", slope_per_hour(kept.at, values), 1, "%/h")
    yield at_most("soak/descriptors-growth", growth(kept.descriptors), DESCRIPTORS)
    yield at_most(
        "soak/shared-memory-growth", growth(kept.shared_mib), SHORT_SHARED_MIB if short else GROWTH_MIB, "MiB"
    )


def _flags(address: str) -> tuple[str, ...]:
    netloc = address.removeprefix("http://")
    return (*flags(make_model(MODELS, CAPPED_PIXELS), CONTEXT), *CACHES, "--fetch-allowed-hosts", netloc)


def _templates(address: str) -> list[Template]:
    """Three pictures in the request, two small and one large, and then one by its address."""
    made: list[Template] = []
    for turn in range(4):
        seed = 3 * turn
        made.append(picture_template("224px", seed, 4, stream=False))
        made.append(picture_template("1080p", seed + 1, 4, stream=True))
        made.append(picture_template("224px", seed + 2, 4, stream=True))
        messages = question(f"{address}/{MARK.decode()}", "What is written here?")
        made.append(request_template("fetched", messages, 4, stream=False))
    return made


def _work(server: Server, templates: Sequence[Template], seconds: float) -> tuple[Load, Samples]:
    """Ask all the time, and look at the server's processes meanwhile."""
    samples, stop, began = Samples(), threading.Event(), time.monotonic()

    def look() -> None:
        while not stop.wait(SAMPLE_S):
            samples.take(server, began)

    looking = threading.Thread(target=look, name="samples")
    looking.start()
    try:
        return run(keep_asking(server.address, templates, CALLERS, seconds, itertools.count())), samples
    finally:
        stop.set()
        looking.join()


def growth(values: Sequence[float]) -> float:
    """How much the last quarter is above the first, by their medians."""
    quarter = max(1, len(values) // 4)
    return float(np.median(values[-quarter:]) - np.median(values[:quarter]))


def slope_per_hour(at: Sequence[float], values: Sequence[float]) -> float:
    """Growth in percent an hour: the median of the slopes between all pairs (Theil 1950, Sen 1968), which no single
    jump and no noise moves.
    """
    if len(at) < 2:
        return math.nan
    x, y = _thinned(at), _thinned(values)
    first, second = np.triu_indices(len(x), 1)
    slope = float(np.median((y[second] - y[first]) / (x[second] - x[first])))
    return 100 * slope * HOUR_S / float(np.median(y))


def _thinned(values: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """At most a thousand of them, evenly spread: pairs are many."""
    return np.asarray(values[:: max(1, len(values) // 1000)], np.float64)


def _shared_mib(server: Server) -> float:
    """Each file counts once, however many processes have it."""
    found: dict[tuple[int, int], int] = {}
    for process in server.family():
        with contextlib.suppress(OSError):
            for link in Path(f"/proc/{process.pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if SHARED.match(str(link.readlink())):
                        status = link.stat()
                        found[status.st_dev, status.st_ino] = 512 * status.st_blocks
    return sum(found.values()) / (1 << 20)


# ---- A host of pictures


@contextlib.contextmanager
def _host() -> Iterator[str]:
    """A host on loopback that has a picture under every address, another one under each, for an hour."""
    files = [PICTURES["224px"](seed) for seed in range(100, 108)]

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            number = self.path[1:].encode()[:DIGITS].ljust(DIGITS)
            file = with_comment(files[hash(number) % len(files)], number)
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(file)))
            self.send_header("Cache-Control", "max-age=3600")
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # at the end of the drill
                self.wfile.write(file)

        def log_message(self, *_: object) -> None: ...

    host = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{host.server_port}"
    finally:
        host.shutdown()
        thread.join()
        host.server_close()
