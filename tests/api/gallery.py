"""A web server with pictures, for the server under test to fetch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.api.house import BLUE, RED, plain

PICTURES = {"/red.png": plain(RED), "/blue.png": plain(BLUE), "/text": b"no picture at all", "/empty": b""}


class Gallery:
    """Serves PICTURES; /slow begins an answer and never goes on."""

    def __init__(self) -> None:
        gallery = self
        self.waiting = 0
        """Visitors that wait for /slow."""
        self._closing = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/slow":
                    gallery._let_wait()
                    return
                content = PICTURES.get(self.path)
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Type", "image/png")
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self.address = f"127.0.0.1:{self._server.server_port}"

    def _let_wait(self) -> None:
        self.waiting += 1
        self._closing.wait(30)

    def let_go(self) -> None:
        """Whoever waits for /slow gets nothing, now."""
        self._closing.set()
        self._closing = threading.Event()

    def url(self, path: str) -> str:
        return f"http://{self.address}{path}"

    @contextmanager
    def open(self) -> Iterator[Gallery]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            self._closing.set()
            self._server.shutdown()
            thread.join()
            self._server.server_close()
