"""Server-sent events on the wire."""

from __future__ import annotations

import orjson
from hypothesis import given
from hypothesis import strategies as st

from server.errors import BadRequest
from server.openai.sse import DONE, PING, error_frame, frame


def test_frames() -> None:
    assert frame(b'{"a":1}') == b'data: {"a":1}\n\n'
    assert DONE == b"data: [DONE]\n\n"


def test_a_ping_is_a_comment_and_no_event() -> None:
    """A line that begins with a colon (HTML standard, 9.2.6), and the empty line after it."""
    line, *rest = PING.split(b"\n")
    assert line.startswith(b":")
    assert rest == [b"", b""]


@given(st.text(), st.none() | st.text())
def test_an_error_frame_is_the_body_of_an_http_error_on_one_line(message: str, param: str | None) -> None:
    error = BadRequest(message, param=param)
    written = error_frame(error)
    assert written.startswith(b"data: ")
    assert written.endswith(b"\n\n")
    assert b"\n" not in written[:-2]
    assert b"\r" not in written
    assert orjson.loads(written[6:]) == error.body()
