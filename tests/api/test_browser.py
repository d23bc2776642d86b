"""What a real browser lets the page of a stranger send, and what becomes of it."""

from __future__ import annotations

import http.server
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.api.house import CHAT, NAME, open_house
from tests.waiting import slowness

BROWSER: Final = shutil.which("chromium") or shutil.which("google-chrome")
STRANGER: Final = "evil.example"
PAGE: Final = """<!doctype html><title>A page</title><p id="said">nothing yet</p><script>
const body = JSON.stringify({model: "%s", messages: [{role: "user", content: "Hello"}]});
fetch("http://127.0.0.1:%d%s", {method: "POST", mode: "no-cors", body: new Blob([body])})
    .then((reply) => { said.textContent = `sent: ${reply.type}`; })
    .catch((error) => { said.textContent = `failed: ${error}`; });
</script>"""
"""A Blob without a type goes out without a Content-Type, and so without asking first."""

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="Chromium is missing: sudo apt-get install -y chromium brings it"
)


@contextmanager
def page_of_a_stranger(text: str) -> Iterator[int]:
    """A web server with one page; its port."""

    class Pages(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Pages) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def visit(url: str, profile: Path) -> str:
    """The page as it is once its scripts have run."""
    command = [
        str(BROWSER),
        "--headless=new",
        "--no-sandbox",  # which root has to say
        "--disable-gpu",
        f"--user-data-dir={profile}",
        f"--host-resolver-rules=MAP {STRANGER} 127.0.0.1",
        "--virtual-time-budget=10000",
        "--dump-dom",
        url,
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60 * slowness(), check=True)
    return ended.stdout


@pytest.mark.parametrize(
    ("settings", "answered"), [({}, 0), ({"cors_origins": ["*"]}, 1)], ids=["by default", "all pages allowed"]
)
def test_the_page_of_a_stranger_is_sent_away(settings: dict[str, list[str]], answered: int, tmp_path: Path) -> None:
    """Where the operator allows all pages, the same page is answered: the browser does send what it says."""
    with open_house(**settings) as house, page_of_a_stranger(PAGE % (NAME, house.port, CHAT)) as port:
        assert "sent: opaque" in visit(f"http://{STRANGER}:{port}/", tmp_path)
        assert len(house.engine.requests) == answered


def test_the_page_of_the_apis_description_runs_under_its_policy(tmp_path: Path) -> None:
    with open_house() as house:
        shown = re.sub(r"<[^>]*>|\u200b", "", visit(f"http://127.0.0.1:{house.port}/docs", tmp_path))
        assert "/v1/chat/completions" in shown
