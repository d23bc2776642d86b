"""Fetching the front end in Rust."""

from __future__ import annotations

import os
import zipfile
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from clients.bench import rust


def test_the_program_is_taken_out_of_the_wheel_and_can_be_run(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "vllm.whl", "w") as wheel:
        wheel.writestr("vllm/vllm-rs", b"\x7fELF")
    rust.take(tmp_path / "vllm.whl", tmp_path / "bench" / "vllm-rs")
    assert (tmp_path / "bench" / "vllm-rs").read_bytes() == b"\x7fELF"
    assert os.access(tmp_path / "bench" / "vllm-rs", os.X_OK)


def test_the_version_is_that_of_either_build(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name != "vllm":
            raise PackageNotFoundError(name)
        return "0.32.0+cu130"

    monkeypatch.setattr(rust, "version", version)
    assert rust.installed_version() == "0.32.0"


def test_without_an_engine_there_is_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rust, "BUILDS", ("no-such-package",))
    with pytest.raises(PackageNotFoundError):
        rust.installed_version()
