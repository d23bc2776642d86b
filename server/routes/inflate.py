"""Request bodies that come compressed (RFC 9110, 8.4): inflated piece by piece, so that every bound counts what comes
out of them."""

from __future__ import annotations

import asyncio
import zlib

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import BadRequest, ContentCodingUnknown

PIECE_BYTES = 1 << 15
"""Inflated at a time: a tenth of a millisecond."""
WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""What zlib calls each coding; `deflate` is zlib's own format (RFC 9110, 8.4.1.2)."""


class Inflate:
    """Shows those behind it a body as it was before it was compressed. Stands before whatever counts its bytes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        coding = Headers(scope=scope).get("content-encoding", "").strip().lower() if scope["type"] == "http" else ""
        if coding in ("", "identity"):
            await self._app(scope, receive, send)
        elif coding in WINDOWS:
            await self._app(scope, _Inflated(receive, coding).receive, send)
        else:
            raise ContentCodingUnknown(
                f"'Content-Encoding: {coding[:50]}' is not known here; gzip, deflate and bodies as they are, are."
            )


class _Inflated:
    """One body."""

    def __init__(self, receive: Receive, coding: str) -> None:
        self._receive = receive
        self._coding = coding
        self._decoder = zlib.decompressobj(WINDOWS[coding])
        self._waiting = b""
        """Compressed bytes that have come and been kept for the next piece: at most one message's."""
        self._more = True
        self._full = False

    async def receive(self) -> Message:
        if self._waiting or self._full:
            await asyncio.sleep(0)  # the others' turn: a megabyte of noughts takes a kilobyte
        else:
            message = await self._receive()
            if message["type"] != "http.request":
                return message
            self._waiting, self._more = message.get("body", b""), message.get("more_body", False)
        piece = self._inflate()
        self._full = len(piece) == PIECE_BYTES  # then there may be more of it inside the decoder
        unfinished = self._more or bool(self._waiting) or self._full
        if not unfinished and not self._decoder.eof:
            raise self._broken()
        return {"type": "http.request", "body": piece, "more_body": unfinished}

    def _inflate(self) -> bytes:
        try:
            piece = self._decoder.decompress(self._waiting, PIECE_BYTES)
        except zlib.error:
            raise self._broken() from None
        if self._decoder.unused_data:
            raise self._broken()
        self._waiting = self._decoder.unconsumed_tail
        return piece

    def _broken(self) -> BadRequest:
        return BadRequest(
            f"The request body is not what 'Content-Encoding: {self._coding}' says.", code="invalid_content_encoding"
        )
