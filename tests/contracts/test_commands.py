"""The two commands of the README do everything themselves, and CI does nothing that they do not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def commands(script: str) -> str:
    """A shell script without its comments."""
    return "\n".join(line.partition(" #")[0] for line in text(script).splitlines() if not line.startswith("#"))


def test_ci_runs_what_the_readme_tells_everybody_to_run_and_installs_nothing() -> None:
    script = commands(".ci/run")
    assert re.findall(r"\bmake [a-z-]+", script) == ["make check", "make test"]
    assert not re.search(r"\b(apt|apt-get|dpkg|pip|uv|npm|sudo|curl|wget)\b|scripts/", script)


@pytest.mark.parametrize("command", ["serve", "test", "check"])
def test_each_command_sets_up_what_it_needs(command: str) -> None:
    assert re.search(rf"^{command}: setup(-dev)?\b", text("Makefile"), re.MULTILINE)
    assert f"make {command} " in text("README.md")


def test_setup_starts_no_service() -> None:
    """All that it asks the system for is libraries and a part of Python."""
    script = commands("scripts/system.sh")
    packages = set(re.findall(r"\b(lib\w+\d|python\S*-venv|python3-pip-whl)\b", script))
    assert packages == {"libnuma1", "libfribidi0", "python{}.{}-venv", "python3-pip-whl"}
    assert not re.search(r"\b(systemctl|service|nginx|haproxy)\b", script)


@pytest.mark.parametrize("script", ["setup.sh", "check.sh"])
def test_scripts_are_programs(script: str) -> None:
    assert os.access(ROOT / "scripts" / script, os.X_OK)


# ---- Where nobody may install and nothing can be fetched

NEEDS = """
source scripts/common.sh
has_library() { return 1; }
has_debian() { return 1; }
need_libraries_of "$1"
echo went on
"""


def needs(list_of_packages: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", NEEDS, "scripts/setup.sh", list_of_packages]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


def test_without_libnuma_setup_ends_and_says_what_brings_it() -> None:
    ended = needs("requirements/cpu.txt")
    assert ended.returncode == 1
    assert "libnuma.so.1 is missing; it comes with: sudo apt-get install -y libnuma1" in ended.stderr
    assert "went on" not in ended.stdout


def test_without_fribidi_setup_goes_on_and_says_which_tests_are_skipped() -> None:
    ended = needs("requirements/dev.txt")
    assert ended.returncode == 0
    assert "libfribidi0" in ended.stderr
    assert "tests that draw Arabic will be skipped" in ended.stderr
    assert "went on" in ended.stdout


@pytest.mark.parametrize("name", ["bootstrap", "cpu", "gpu", "dev"])
def test_every_package_of_a_pinned_list_has_the_hashes_of_its_files(name: str) -> None:
    entries = (ROOT / f"requirements/{name}.txt").read_text(encoding="utf-8")
    pins = re.split(r"(?m)^(?=[a-z0-9])", re.sub(r"(?m)^ *#.*\n?", "", entries))[1:]
    assert len(pins) >= 1
    for pin in pins:
        assert re.match(r"[a-z0-9._-]+===?[^ ]+ ", pin), pin
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", pin), pin


@pytest.mark.parametrize("file", ["scripts/setup.sh", "Dockerfile", "docker/Dockerfile.cpu"])
def test_packages_are_installed_by_their_hashes(file: str) -> None:
    assert "--require-hashes" in (ROOT / file).read_text(encoding="utf-8")


def test_an_image_is_given_what_it_lacks_with_its_hashes(tmp_path: Path) -> None:
    wanted = "no-such-package==1.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
    (tmp_path / "list.txt").write_text(f"pytest==1.0 \\\n    --hash=sha256:cc\n    # via us\n{wanted}    # via us\n")
    command = [sys.executable, ROOT / "docker/missing.py", ROOT / "pyproject.toml", tmp_path / "list.txt"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == wanted
