"""What a person sees in the terminal while the server starts, and when it cannot.

On a terminal: the running phases with a spinner and their seconds; a finished one stays as a line with its time. Into a
pipe or a file: a plain line when a phase begins and when it ends. Quiet: nothing but the ready line and errors.

Everything goes to one stream, stderr unless told otherwise. Whoever sends the process's stderr elsewhere (into the
engine's log, say) hands over a stream of its own.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self, TextIO

from rich.cells import cell_len
from rich.console import Console as RichConsole
from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.spinner import Spinner
from rich.text import Text

FRAMES_PER_SECOND = 8
LOG_LINES = 20
"""How many of the log's last lines an error shows."""

TERMINAL_CODES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]"
)
"""Escape sequences and control characters: text from elsewhere must not move the cursor. Arabic's marks are not among
them."""


class _UnfailingConsole(RichConsole):
    """A full disk, or a terminal that has gone, takes the words and not the server."""

    def _write_buffer(self) -> None:
        try:
            super()._write_buffer()
        except OSError:
            del self._buffer[:]


@dataclass(slots=True, eq=False)
class _Phase:
    name: str
    detail: str
    began: float


class Console:
    """The start-up, told to a person. Every method may be called from any thread."""

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._rich = _UnfailingConsole(file=self._stream)
        self._quiet = quiet
        self._live_wanted = self._rich.is_terminal and not self._rich.is_dumb_terminal and not quiet
        self._live: Live | None = None
        unicode = (getattr(self._stream, "encoding", None) or "").lower().startswith("utf")
        self._tick, self._cross, spinner = ("✓", "✗", "dots") if unicode else ("+", "x", "line")
        self._frames = Spinner(spinner).frames
        self._began = time.monotonic()
        self._lock = threading.RLock()
        # Replaced, never changed in place: the drawing thread reads it without the lock, because it holds rich's own
        # lock then, and we take rich's lock while holding ours.
        self._phases: tuple[_Phase, ...] = ()

    # ---- Phases

    @contextmanager
    def phase(self, name: str, detail: str = "") -> Iterator[None]:
        """A phase as long as the block runs; it ends with a cross if the block raises."""
        phase = self._begin(name, detail)
        try:
            yield
        except BaseException:
            self._end(phase, self._cross, "")
            raise
        self._end(phase, self._tick, "")

    def begin(self, name: str, detail: str = "") -> None:
        """Begins a phase; phases may run inside one another."""
        self._begin(name, detail)

    def update(self, detail: str) -> None:
        """What the phase that began last is doing; shown on a terminal only, and with the phase's end."""
        with self._lock:
            if self._phases:
                self._phases[-1].detail = _clean(detail)

    def done(self, detail: str = "") -> None:
        """Ends the phase that began last."""
        with self._lock:
            if self._phases:
                self._end(self._phases[-1], self._tick, detail)

    def note(self, text: str) -> None:
        """A line that stays, such as a decision that the server made."""
        if not self._quiet:
            self._print(*(f"{self._margin()}{_clean(line)}" for line in text.splitlines()))

    # ---- Ends

    def ready(self, *, address: str, model: str, docs: str, log_file: str = "", curl: str = "") -> None:
        """The server answers: where, with what, and a command to try, printed unwrapped so that it can be copied."""
        seconds = time.monotonic() - self._began
        with self._lock:
            self.close()
            if self._quiet:
                self._print(f"Ready at {address} with {model} after {seconds:.1f} s")
                return
            facts = {"Address": address, "Model": model, "Docs": docs, "Log": log_file}
            self._show_facts(f"Ready after {seconds:.1f} s", {name: text for name, text in facts.items() if text})
            if curl:
                self._print("", "Try it:", "", *curl.splitlines(), "")

    def fail(self, title: str, hint: str = "", log_tail: Sequence[str] = (), log_file: str = "") -> None:
        """The server cannot go on: what happened, the last lines of the log, and what to do next."""
        with self._lock:
            for phase in reversed(self._phases):
                self._end(phase, self._cross, "")
            self.close()
            if log_tail:
                self._print("", f"The last lines of {log_file or 'the log'}:")
                self._print(*(f"  | {_clean(line)}" for line in list(log_tail)[-LOG_LINES:]), style="dim")
            self._print("", *_clean_lines(f"{self._cross} {title}"), style="bold red")
            if hint:
                self._print(*(f"  {line}" for line in _clean_lines(hint)))

    def close(self) -> None:
        """Stops drawing and gives the cursor back; phases that still run are forgotten."""
        with self._lock:
            self._phases = ()
            if self._live is not None:
                self._live.stop()
                self._live = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- Drawing

    def _begin(self, name: str, detail: str) -> _Phase:
        phase = _Phase(_clean(name), _clean(detail), time.monotonic())
        with self._lock:
            if self._live_wanted:
                self._start_live()
            elif not self._quiet:
                self._print(f"{self._margin()}{_joined(phase.name, phase.detail)} ...")
            self._phases += (phase,)
        return phase

    def _end(self, phase: _Phase, mark: str, detail: str) -> None:
        with self._lock:
            if phase not in self._phases:
                return
            self._phases = tuple(other for other in self._phases if other is not phase)
            if self._quiet:
                return
            seconds = time.monotonic() - phase.began
            text = _joined(phase.name, _clean(detail) or phase.detail)
            if self._live is not None:
                self._live.refresh()  # without the line that ends here
                style = "green" if mark == self._tick else "red"
                line = Text.assemble((f" {mark}", style), (f"{seconds:7.1f} s  ", "dim"), text)
                self._rich.print(line, soft_wrap=True)
            else:
                self._print(f"{self._margin()}{mark} {text} ({seconds:.1f} s)")

    def _start_live(self) -> None:
        if self._live is None:
            # stdout and stderr stay as they are: rich would put objects with locks in their place, and a process
            # forked from here could wait for such a lock forever.
            self._live = Live(
                console=self._rich,
                get_renderable=self._running,
                refresh_per_second=FRAMES_PER_SECOND,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def _running(self) -> RenderableType:
        """The running phases, one line each, cut at the terminal's edge."""
        return Group(*(self._running_line(phase) for phase in self._phases))

    def _running_line(self, phase: _Phase) -> Text:
        seconds = time.monotonic() - phase.began
        frame = self._frames[int(seconds * FRAMES_PER_SECOND) % len(self._frames)]
        line = Text.assemble((f" {frame}", "cyan"), (f"{seconds:7.1f} s  ", "dim"), _joined(phase.name, phase.detail))
        line.truncate(self._rich.width, overflow="ellipsis")
        return line

    def _show_facts(self, title: str, facts: dict[str, str]) -> None:
        lines = [f"{name:<9}{_clean(text)}" for name, text in facts.items()]
        widest = max(map(cell_len, [title, *lines])) + 4
        if self._live_wanted and widest <= self._rich.width:  # a box that breaks an address would spoil it for copying
            self._rich.print(Panel.fit(Text("\n".join(lines)), title=Text(title), border_style="green"))
        else:
            self._print(title, *lines)

    def _margin(self) -> str:
        """The time since the start, where lines are plain; on a terminal the width of a phase's mark and seconds."""
        return " " * 13 if self._live_wanted else f"[{time.monotonic() - self._began:6.1f} s] "

    def _print(self, *lines: str, style: str = "") -> None:
        for line in lines:  # as Text, which rich takes as it is: no markup, no emoji codes, no colours by guess
            self._rich.print(Text(line, style=style), soft_wrap=True)


def _joined(name: str, detail: str) -> str:
    return f"{name}: {detail}" if detail else name


def _clean(text: str) -> str:
    shown = text.rstrip().rpartition("\r")[2]  # of a progress bar that redraws itself, the last state
    return TERMINAL_CODES.sub("", shown)


def _clean_lines(text: str) -> list[str]:
    return [_clean(line) for line in text.splitlines()]
