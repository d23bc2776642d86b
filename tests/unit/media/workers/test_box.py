"""A decode worker that a file has taken over can do nothing with it."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[4]

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="it calls the kernel by x86's numbers")


def play(folder: Path, *before: str) -> dict[str, Any]:
    secret = folder / "keys"
    secret.write_text("secret")
    folder.chmod(0o777)
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [*before, sys.executable, "-m", "tests.unit.media.taken_over"]
        ended = subprocess.run(
            [*command, str(secret), str(server.getsockname()[1]), str(folder)],
            cwd=ROOT,
            env={**os.environ, "AIN_API_KEYS": "secret"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr
    assert secret.exists()
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_a_worker_that_was_taken_over_can_do_nothing_and_decode(tmp_path: Path) -> None:
    found = play(tmp_path)
    assert found["can"] == []
    assert found["needs"] == ["threads", "memory files", "limits"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take root's rights away")
def test_a_root_without_rights_loses_what_is_left(tmp_path: Path) -> None:
    """As in a container: no namespaces can be had, and the missing part is named."""
    found = play(tmp_path, "setpriv", "--bounding-set=-all", "--no-new-privs")
    assert found["can"] == []
    assert len(found["needs"]) == 3
