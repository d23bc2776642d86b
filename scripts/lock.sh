#!/usr/bin/env bash
# Solves pyproject.toml and requirements/*.in into the pinned lists requirements/{bootstrap,gpu,cpu,dev}.txt.
#   scripts/lock.sh              keeps every pin that still fits
#   scripts/lock.sh --upgrade    takes the newest of everything
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
make_venv

# One version of a package for all Pythons, with the hashes of its files: no mirror can give others. No addresses: the
# lists hold for every mirror.
solve() {
    "$VENV/bin/uv" pip compile --quiet --generate-hashes --no-header --annotation-style line --universal --python-version 3.11 \
        --fork-strategy fewest --excludes requirements/excludes.in "$@" >/dev/null
}

# uv repeats tool.uv.environments on every line; the lists are for those machines alone, so there it says nothing.
drop_environments() {
    local cpython="platform_python_implementation == 'CPython' and sys_platform == 'linux'"
    local here="python_full_version < '3.14' and implementation_name == 'cpython' and"
    here+=" ((platform_machine == 'aarch64' and $cpython) or (platform_machine == 'x86_64' and $cpython))"
    sed -i -e "s/ ; $here//" -e "s/ and $here//" "$@"
}

# Only PyPI's own build meets `===`. With `==` pip also takes a torch 2.13.0+cpu it finds, and torchvision fails beside it.
name_the_build() { sed -i -E 's/^(torch|torchvision)==/\1===/' "$@"; }

# Fails where a list lacks a wheel for one of the Pythons and machines. glibc 2.34: Ubuntu 22.04, Debian 12, RHEL 9.
check_wheels() {
    local python machine
    for machine in x86_64 aarch64; do
        for python in 3.11 3.12 3.13; do
            "$VENV/bin/uv" pip install --quiet --dry-run --target "$scratch" --no-deps --only-binary :all: \
                --python-version "$python" --python-platform "$machine-manylinux_2_34" -r "$1"
        done
    done
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

say 'solving for the installer'
solve "$@" requirements/bootstrap.in -o requirements/bootstrap.txt

say 'solving for the GPU engine'
solve "$@" pyproject.toml requirements/gpu.in --constraints requirements/shared.in -o requirements/gpu.txt

say 'solving for the CPU engine'
solve "$@" pyproject.toml requirements/cpu.in --constraints requirements/shared.in -o requirements/cpu.txt \
    --overrides requirements/overrides-cpu.in --excludes requirements/excludes-cpu.in

say 'solving for tests and checks, with the versions that the engines take'
solve "$@" requirements/dev.in --constraints requirements/cpu.txt --constraints requirements/gpu.txt -o requirements/dev.txt

drop_environments requirements/{bootstrap,gpu,cpu,dev}.txt
name_the_build requirements/{gpu,cpu}.txt

for list in requirements/{bootstrap,gpu,cpu,dev}.txt; do
    say "looking for the wheels of $list"
    check_wheels "$list"
done
