"""What the model can run on, as nvidia-smi tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.engine.device import Device, find_device


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH; an nvidia-smi put there is the machine's."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def install(folder: Path, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)


def test_the_first_gpu_counts(driver: Path) -> None:
    install(driver, "echo 'NVIDIA H100 80GB HBM3, 81559'; echo 'NVIDIA T4, 15360'")
    assert find_device("gpu") == Device("gpu", "NVIDIA H100 80GB HBM3", 81559 / 1024)


def test_a_name_with_a_comma_is_a_name(driver: Path) -> None:
    install(driver, "echo 'Strange, very strange, 1024'")
    assert find_device("gpu") == Device("gpu", "Strange, very strange", 1.0)


def test_nvidia_smi_is_asked_for_numbers_alone(driver: Path) -> None:
    install(driver, f'echo "$@" > {driver}/asked; echo "GPU, 1024"')
    find_device("gpu")
    assert (driver / "asked").read_text().split() == ["--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]


@pytest.mark.parametrize(
    "script",
    ["exit 9", "true", "echo 'No devices were found'", "echo 'driver broken' >&2; exit 1"],
)
def test_a_gpu_that_cannot_be_asked_is_believed_where_it_is_wanted(driver: Path, script: str) -> None:
    install(driver, script)
    assert find_device("gpu") == Device("gpu", "GPU of unknown size", 0.0)
    assert find_device("auto").kind == "cpu"


def test_a_gpu_without_memory_of_its_own_is_one_of_unknown_size(driver: Path) -> None:
    install(driver, "echo 'NVIDIA GB10, [N/A]'")
    assert find_device("gpu") == Device("gpu", "NVIDIA GB10", 0.0)


def test_without_nvidia_smi_there_is_the_cpu(driver: Path) -> None:
    assert find_device("auto") == Device("cpu", "CPU")
    assert find_device("gpu") == Device("gpu", "GPU of unknown size")


def test_whoever_wants_the_cpu_gets_it(driver: Path) -> None:
    install(driver, "echo 'NVIDIA H100 80GB HBM3, 81559'")
    assert find_device("cpu") == Device("cpu", "CPU")
