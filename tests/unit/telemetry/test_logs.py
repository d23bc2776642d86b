from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import re
import resource
import time
from collections.abc import Iterator
from typing import TextIO

import pytest

from server.telemetry import traces
from server.telemetry.logs import ROOTS, configure_logs, request_id

LOGGER = logging.getLogger("ain.access")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ROOTS]
    kept = [(logger, logger.handlers, logger.level, logger.propagate) for logger in loggers]
    raises, given = logging.raiseExceptions, request_id.set("")
    yield
    request_id.reset(given)
    logging.raiseExceptions = raises
    for logger, handlers, level, propagate in kept:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture
def written() -> io.StringIO:
    return io.StringIO()


def objects(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


# ---- Text


def test_a_text_line_has_the_time_the_level_and_the_message(written: io.StringIO) -> None:
    configure_logs("info", written)
    LOGGER.warning("%d of them", 3)
    LOGGER.debug("not shown")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING 3 of them\n", written.getvalue())


def test_a_text_line_ends_with_its_request_unless_it_names_it(written: io.StringIO) -> None:
    configure_logs("info", written)
    request_id.set("req-1")
    LOGGER.info("something")
    LOGGER.info("GET / 200 0.001 s req-1")
    first, second = written.getvalue().splitlines()
    assert first.endswith("something req-1")
    assert second.endswith("s req-1")
    assert second.count("req-1") == 1


# ---- JSON


def test_a_json_line_is_one_object_whatever_is_said(written: io.StringIO) -> None:
    configure_logs("info", written, "json")
    LOGGER.info('two\nlines, "quotes" and %s', "\u0645\u0631\u062d\u0628\u0627\x00")
    (line,) = objects(written)
    time_, level, logger, message = line.values()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", str(time_))
    assert (level, logger) == ("info", "ain.access")
    assert message == 'two\nlines, "quotes" and \u0645\u0631\u062d\u0628\u0627\x00'
    assert list(line) == ["time", "level", "logger", "message"]


def test_a_json_line_carries_its_request_and_what_it_was_given(written: io.StringIO) -> None:
    configure_logs("info", written, "json")
    request_id.set("req-1")
    LOGGER.info("done", extra={"status": 200, "seconds": 0.25})
    (line,) = objects(written)
    assert {name: line[name] for name in ("message", "request_id", "status", "seconds")} == {
        "message": "done",
        "request_id": "req-1",
        "status": 200,
        "seconds": 0.25,
    }


def test_a_json_line_carries_its_trace(written: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    configure_logs("info", written, "json")
    monkeypatch.setattr(traces, "trace_id", lambda: "0af7651916cd43dd8448eb211c80319c")
    LOGGER.info("done")
    assert objects(written)[0]["trace_id"] == "0af7651916cd43dd8448eb211c80319c"


def test_a_json_line_holds_the_whole_of_an_exception(written: io.StringIO) -> None:
    configure_logs("info", written, "json")
    try:
        raise ValueError("what was wrong")
    except ValueError:
        LOGGER.exception("it failed")
    (line,) = objects(written)
    assert line["level"] == "error"
    assert str(line["exception"]).startswith("Traceback")
    assert str(line["exception"]).endswith("ValueError: what was wrong")


async def test_each_task_has_the_id_of_its_own_request(written: io.StringIO) -> None:
    configure_logs("info", written, "json")

    async def work(number: int) -> None:
        request_id.set(f"req-{number}")
        await asyncio.sleep(0)
        await asyncio.to_thread(LOGGER.info, "%d", number)

    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(work(number))
    assert {(line["message"], line["request_id"]) for line in objects(written)} == {
        (f"{number}", f"req-{number}") for number in range(20)
    }
    assert request_id.get() == ""


# ---- When nothing can be written


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("with_error", [False, True])
def test_a_full_disk_costs_the_lines_and_nothing_else(
    log_format: str, with_error: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        configure_logs("info", full, log_format)  # type: ignore[arg-type]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.perf_counter()
        for _ in range(2000):
            _say_something(with_error)
        assert time.perf_counter() - began < 5
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10  # KiB
        _empty(full)
    assert capfd.readouterr() == ("", "")


def test_a_stream_that_was_closed_costs_the_lines_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    configure_logs("info", stream)
    stream.close()
    _say_something(with_error=True)
    assert capfd.readouterr() == ("", "")


def _say_something(with_error: bool) -> None:
    try:
        raise ValueError("x" * 1000)
    except ValueError:
        LOGGER.error("y" * 1000, exc_info=with_error)


def _empty(full: TextIO) -> None:
    """Let go of what could not be written, so that closing the stream raises nothing."""
    with open("/dev/null", "w", encoding="utf-8") as null:
        os.dup2(null.fileno(), full.fileno())
