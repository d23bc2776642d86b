# shellcheck shell=bash
# Sourced by the scripts beside it: strict mode, the repository as working directory, and what they share.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly VENV=.venv

say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; }
die() {
    say "$*"
    exit 1
}

# shellcheck source=system.sh
source scripts/system.sh

# Prints a Python that the engines run on; $PYTHON names the only candidate.
find_python() {
    local python
    for python in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            printf '%s\n' "$python"
            return
        fi
    done
    die "needs Python 3.11, 3.12 or 3.13; if it is not on PATH, name it: PYTHON=/path/to/python3.12 make ..."
}

# Prints cpu or gpu: what $ENGINE says, else what the machine has.
find_engine() {
    case ${ENGINE:-} in
        cpu | gpu) printf '%s\n' "$ENGINE" ;;
        '') if [[ -e /dev/nvidia0 ]] || nvidia-smi >/dev/null 2>&1; then echo gpu; else echo cpu; fi ;;
        *) die "ENGINE is cpu or gpu, not '$ENGINE'" ;;
    esac
}

# Makes $VENV with nothing but the installer in it, unless it is there and whole.
make_venv() {
    if "$VENV/bin/python" -c '' 2>/dev/null && "$VENV/bin/uv" --version >/dev/null 2>&1; then return; fi
    local python
    python=$(find_python)
    say "making $VENV with $("$python" --version)"
    make_environment "$python" ||
        die "$python makes no environments; on Debian and Ubuntu: sudo apt-get install -y python3-venv"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -r requirements/bootstrap.txt
}

export UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-180}" # uv's own 30 seconds are short for a slow mirror
