"""Headers of replies that balancers read."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import anyio.to_thread

from server.admission.gate import Gate
from server.core import ClipSource, Ignored, Source
from server.routes import affinity, orca
from server.telemetry import metrics

IGNORED = "x-ignored-parameters"
log = logging.getLogger(__name__)


def load_header(wanted: Mapping[str, str], gate: Gate) -> dict[str, str]:
    """How busy this server is (ORCA), where the request asks for it."""
    asked = wanted.get(orca.ASKED_BY)
    if asked is None:
        return {}
    load = orca.Load(application_utilization=gate.utilization, rps_fractional=gate.ended_a_second)
    report = orca.load_report(asked, load)
    return {} if report is None else {orca.HEADER: report}


def ignored_header(ignored: Ignored) -> dict[str, str]:
    """What of the request has no effect: in the header that is returned, in the log and in a count."""
    if not ignored.count:
        return {}
    metrics.PARAMETERS_IGNORED.inc(ignored.count)
    log.info("parameters without effect: %s", ignored, extra={"ignored": ignored.count})
    return {IGNORED: str(ignored)}


async def affinity_header(wanted: Mapping[str, str], sources: Sequence[Source]) -> dict[str, str]:
    """The key of the first picture, where the request has the header, with whatever value: hashing megabytes costs."""
    if affinity.HEADER not in wanted or not sources:
        return {}
    first = sources[0]
    urls = first.urls if isinstance(first, ClipSource) else (first.url,)
    key = await anyio.to_thread.run_sync(affinity.image_hash, urls)
    return {} if key is None else {affinity.HEADER: key}
