"""What a person sees at start-up, on a terminal, in a pipe and in quiet."""

from __future__ import annotations

import io
import re
import threading
import time

import pytest

from server.telemetry.console import Console

ARABIC = "جاهز: مرحبًا بالعالم"
CURL = (
    """curl http://127.0.0.1:8000/v1/chat/completions -d '{"model": "demo", "messages": [[red]مرحبا[/red] :smile:]}'"""
)
READY = {
    "address": "http://127.0.0.1:8000",
    "model": "demo",
    "docs": "http://127.0.0.1:8000/docs",
    "log_file": "/x.log",
}


class Stream(io.StringIO):
    """A pipe, or a terminal of 60 columns."""

    encoding = "utf-8"

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    @property
    def text(self) -> str:
        """What was written, without colours and cursor movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in re.split(r"[\r\n]+", self.text) if line.strip()]


@pytest.fixture(autouse=True)
def terminal_of_60_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")


@pytest.fixture
def pipe() -> Stream:
    return Stream(terminal=False)


@pytest.fixture
def terminal() -> Stream:
    return Stream(terminal=True)


# ---- Into a pipe


def test_a_pipe_gets_a_line_when_a_phase_begins_and_one_when_it_ends(pipe: Stream) -> None:
    with Console(stream=pipe) as console:
        with console.phase("Loading weights", "demo"):
            console.update("half of 24 MB")
            console.update("24 MB")
        console.begin("Warming up")
        console.done("first picture")
    assert [re.sub(r"\d+\.\d", "0.0", line) for line in pipe.lines] == [
        "[   0.0 s] Loading weights: demo ...",
        "[   0.0 s] ✓ Loading weights: 24 MB (0.0 s)",
        "[   0.0 s] Warming up ...",
        "[   0.0 s] ✓ Warming up: first picture (0.0 s)",
    ]
    assert "\x1b" not in pipe.getvalue()


def test_ready_tells_all_that_is_needed_to_go_on(pipe: Stream) -> None:
    Console(stream=pipe).ready(**READY, curl=CURL)
    assert re.fullmatch(r"Ready after \d+\.\d s", pipe.lines[0])
    assert pipe.lines[1:] == [
        "Address  http://127.0.0.1:8000",
        "Model    demo",
        "Docs     http://127.0.0.1:8000/docs",
        "Log      /x.log",
        "Try it:",
        CURL,
    ]


def test_a_stream_without_unicode_gets_plain_marks(pipe: Stream) -> None:
    pipe.encoding = "ascii"
    console = Console(stream=pipe)
    console.begin("Loading")
    console.done()
    assert "+ Loading" in pipe.text


# ---- On a terminal


def test_a_terminal_shows_what_runs_and_keeps_what_is_done(terminal: Stream) -> None:
    with Console(stream=terminal) as console:
        console.begin("Loading weights")
        console.update("12 of 24 MB")
        time.sleep(0.4)
        console.done("24 MB")
    assert any(re.search(r"0\.\d s  Loading weights: 12 of 24 MB", line) for line in terminal.lines)
    assert re.fullmatch(r" ✓ +0\.[4-9] s  Loading weights: 24 MB", terminal.lines[-1])
    assert terminal.getvalue().rstrip().endswith("\x1b[?25h")  # the cursor is back


def test_a_long_detail_is_cut_while_it_runs_and_whole_when_done(terminal: Stream) -> None:
    with Console(stream=terminal) as console, console.phase("Fetching", "a-very-long-name-" * 10):
        time.sleep(0.3)
    assert terminal.lines[-1].endswith("s  Fetching: " + "a-very-long-name-" * 10)
    running = [line for line in terminal.lines if "Fetching" in line and "✓" not in line]
    assert running
    assert all(len(line) <= 60 and line.endswith("…") and " s  Fetching" in line for line in running)


def test_the_address_stands_in_a_box_and_the_command_outside_it_on_one_line(terminal: Stream) -> None:
    Console(stream=terminal).ready(**READY, curl=CURL)
    assert "│ Address  http://127.0.0.1:8000" in terminal.text
    assert CURL in terminal.text.splitlines()


def test_what_does_not_fit_a_box_is_shown_without_one(terminal: Stream) -> None:
    path = "/home/someone/" + "folder/" * 12 + "engine.log"
    Console(stream=terminal).ready(**{**READY, "log_file": path}, curl=CURL)
    assert f"Log      {path}" in terminal.text.splitlines()
    assert "│" not in terminal.text


def test_a_dumb_terminal_is_written_to_like_a_pipe(terminal: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with Console(stream=terminal) as console, console.phase("Loading"):
        pass
    assert "\x1b" not in terminal.getvalue()


# ---- Both


@pytest.mark.parametrize("is_terminal", [False, True])
def test_notes_come_out_as_they_went_in(is_terminal: bool) -> None:
    stream = Stream(is_terminal)
    console = Console(stream=stream)
    text = f"KV cache [bold]1 GiB[/bold] :smile: {ARABIC} " + "and more words " * 10
    console.note(text)
    assert text.rstrip() in stream.text


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_failed_phase_gets_a_cross_and_the_error_goes_on(is_terminal: bool) -> None:
    stream = Stream(is_terminal)
    console = Console(stream=stream)
    with pytest.raises(RuntimeError), console.phase("Loading weights"):
        raise RuntimeError
    console.close()
    assert "✗" in stream.lines[-1]


@pytest.mark.parametrize("is_terminal", [False, True])
@pytest.mark.parametrize("quiet", [False, True])
def test_a_failure_says_what_happened_what_to_do_and_the_logs_last_lines(is_terminal: bool, quiet: bool) -> None:
    stream = Stream(is_terminal)
    console = Console(stream=stream, quiet=quiet)
    console.begin("Loading weights")
    log = [f"line {number}" for number in range(100)] + ["\x1b[31mOut of memory\x1b[0m", " 10%\r 90% |###\r"]
    console.fail("The engine ended while loading.", "Give it less: --max-model-len 4096", log, "/x.log")
    lines = stream.lines
    assert lines[-2:] == ["✗ The engine ended while loading.", "  Give it less: --max-model-len 4096"]
    assert "The last lines of /x.log:" in lines
    assert lines[-4:-2] == ["  | Out of memory", "  |  90% |###"]
    assert "  | line 82" in lines
    assert "  | line 81" not in lines
    assert any("✗" in line and "Loading weights" in line for line in lines) is not quiet


@pytest.mark.parametrize("is_terminal", [False, True])
def test_quiet_shows_only_that_it_is_ready(is_terminal: bool) -> None:
    stream = Stream(is_terminal)
    with Console(stream=stream, quiet=True) as console:
        console.begin("Loading")
        console.update("more")
        console.note("a note")
        console.done()
        console.ready(**READY, curl=CURL)
    assert re.fullmatch(r"Ready at http://127\.0\.0\.1:8000 with demo after \d+\.\d s\n", stream.text)


@pytest.mark.parametrize("is_terminal", [False, True])
def test_many_threads_may_report_at_once(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.telemetry.console.FRAMES_PER_SECOND", 1000)  # so that drawing gets in the way
    stream = Stream(is_terminal)
    console = Console(stream=stream)

    def report(number: int) -> None:
        for turn in range(20):
            with console.phase(f"phase {number}-{turn}"):
                console.update("detail")
                console.note(f"note {number}-{turn}")

    threads = [threading.Thread(target=report, args=(number,), daemon=True) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "two locks wait for each other"
    console.close()
    for number in range(8):
        for turn in range(20):
            assert re.search(rf"✓.* phase {number}-{turn}\b", stream.text)
            assert f"note {number}-{turn}" in stream.text


def test_ends_without_a_beginning_are_harmless(pipe: Stream) -> None:
    console = Console(stream=pipe)
    console.update("nothing")
    console.done()
    console.close()
    console.close()
    assert pipe.text == ""
