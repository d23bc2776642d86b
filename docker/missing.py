#!/usr/bin/env python3
"""What a pinned list says of the packages that an image lacks, or has too old for us, hashes included.

    missing.py pyproject.toml LIST

vLLM's image comes with its own environment, tested as it is. What it has stays, and only the rest is added.
"""

import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

project, pinned = map(Path, sys.argv[1:])
ours = [Requirement(text) for text in tomllib.loads(project.read_text())["project"]["dependencies"]]
accepted = {canonicalize_name(requirement.name): requirement.specifier for requirement in ours}


def is_there(name: str) -> bool:
    """Whether the image has the package, in a version that our code accepts."""
    try:
        return version(name) in accepted.get(canonicalize_name(name), SpecifierSet())
    except PackageNotFoundError:
        return False


# A package, its hashes on lines that each but the last end in a backslash, comments.
for entry in re.split(r"(?<!\\)\n", re.sub(r"(?m)^ *#.*\n?", "", pinned.read_text()).strip()):
    if not is_there(Requirement(entry.partition("\\")[0]).name):
        print(entry)
