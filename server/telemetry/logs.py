"""The server's own log: one line an event, to the stream that a person or a collector reads. Never any content."""

from __future__ import annotations

import logging
from typing import TextIO

FORMAT = "%(asctime)s %(levelname)-7s %(message)s"
ROOTS = ("ain", "server", "uvicorn")
"""The loggers of this project and of its HTTP server; the engine's write to its own file."""


def configure_logs(level: str, stream: TextIO) -> None:
    """Send the server's log to `stream`, from `level` upwards."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter(FORMAT))
    for name in ROOTS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level.upper())
        logger.propagate = False
    # What uvicorn says of every start and stop is said by the console.
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.getLogger(ROOTS[0]).level))
