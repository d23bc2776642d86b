"""On what terms a client wants its answer."""

from __future__ import annotations

import math

from server.errors import BadRequest

TIMEOUT_HEADER = "x-request-timeout"


def seconds_allowed(header: str | None, field: float | None, most: float) -> float:
    """How long a request may take: what its header `X-Request-Timeout` and its field `timeout` ask, within `most`.

    Raises:
        BadRequest: the header is no number of seconds.
    """
    asked = [most] if field is None else [most, field]
    if header is not None:
        asked.append(_seconds(header))
    return min(asked)


def _seconds(header: str) -> float:
    try:
        seconds = float(header)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise BadRequest("The header X-Request-Timeout must be a positive number of seconds.", param=TIMEOUT_HEADER)
    return seconds
