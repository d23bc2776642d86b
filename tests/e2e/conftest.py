"""One server for all of these tests, with the model that `AIN_MODEL` names or the demo model."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.engine.checkpoint import find_checkpoint
from server.settings import load_settings
from tests.collector import Collector
from tests.e2e.asking import Client
from tests.parity.reference import Reference
from tests.serving import Server, serve
from tests.waiting import tried_again


class ImageHost:
    """A web server on loopback that hands out the files given to it."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[str, bytes]] = {}
        files = self.files

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                media_type, content = files.get(self.path, ("", b""))
                self.send_response(200 if content else 404)
                self.send_header("content-type", media_type)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *_: object) -> None:  # noqa: A002  the name that http.server has
                return None

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.netloc = f"127.0.0.1:{self.http.server_port}"

    def publish(self, path: str, media_type: str, content: bytes) -> str:
        """The URL under which this file is found from now on."""
        self.files[path] = (media_type, content)
        return f"http://{self.netloc}{path}"


@pytest.fixture(scope="package")
def model() -> str:
    """The model under test, as the server's flag takes it."""
    return load_settings([]).model


@pytest.fixture(scope="package")
def folder(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where that model's files are."""
    return find_checkpoint(model, None, tmp_path_factory.mktemp("state"), print)


@pytest.fixture(scope="package")
def image_host() -> Iterator[ImageHost]:
    host = ImageHost()
    thread = threading.Thread(target=host.http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    with host.http:
        yield host
        host.http.shutdown()
        thread.join()


@pytest.fixture(scope="package")
def collector() -> Iterator[Collector]:
    """Where the traces of that server go."""
    with Collector().open() as collector:
        yield collector


@pytest.fixture(scope="package")
def server(model: str, image_host: ImageHost, collector: Collector) -> Iterator[Server]:
    """The server that all tests share; how it ends is tested by `serve` itself."""
    flags = ("--fetch-allowed-hosts", image_host.netloc, "--otlp-endpoint", collector.endpoint)
    with tried_again(lambda: serve("--model", model, *flags)) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    client = Client(server)
    with client.http:
        yield client


@pytest.fixture(scope="package")
def reference(folder: Path) -> Reference:
    """transformers on the same model: what the Quick Start would do."""
    return Reference(folder)
