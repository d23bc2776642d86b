#!/usr/bin/env bash
# Brings .venv to what requirements/ lists; does nothing where it is there already.
#   scripts/setup.sh          the server
#   scripts/setup.sh --dev    and what tests and checks need
# ENGINE=cpu|gpu overrides what the machine has; PYTHON names the Python to use.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

readonly STAMP=$VENV/.installed # the fingerprint of what was installed last

engine=$(find_engine)
server=("requirements/$engine.txt")
everything=("${server[@]}" requirements/dev.txt)

# What an environment made of these lists is made from, in one line.
fingerprint() { cat pyproject.toml scripts/setup.sh requirements/bootstrap.txt "$@" | sha256sum; }

is_installed() { [[ -x $VENV/bin/python && -r $STAMP && $(<"$STAMP") == "$(fingerprint "$@")" ]]; }

install_lists() {
    local started=$SECONDS
    scripts/system-packages.sh "$@"
    make_venv
    rm -f "$STAMP"
    say "installing $(cat "$@" | wc -l) packages for the $engine engine; the first time this fetches some 2 GB"
    # On a terminal uv shows its progress itself. In a log its list of every package would only be noise.
    if [[ -t 2 ]]; then sync_venv "$@"; else sync_venv "$@" 2>&1 | sed '/^ [-+~] /d' >&2; fi
    # The project itself: a link to this folder, and the command ain-serve.
    "$VENV/bin/uv" pip install --quiet --no-deps --no-build-isolation --editable .
    fingerprint "$@" >"$STAMP"
    say "done in $((SECONDS - started)) s"
}

# Exactly these lists, nothing beside them. They are complete, so no dependency is looked at (see requirements/cpu.in).
# Compiled now: else the first start would compile, and every start where Python keeps no bytecode.
sync_venv() { "$VENV/bin/uv" pip sync --compile-bytecode requirements/bootstrap.txt "$@"; }

lists=("${server[@]}")
# What has the tools keeps them: `make serve` takes nothing away from who works on the project.
if [[ ${1:-} == --dev || -x $VENV/bin/pytest ]]; then lists=("${everything[@]}"); fi

# Everything serves as well as the server alone: `make serve` leaves alone what `make test` set up.
if is_installed "${lists[@]}" || is_installed "${everything[@]}"; then exit; fi

exec 9<requirements # one setup at a time: the lock lives on the folder, and goes with this process
flock --nonblock 9 || { say 'waiting for another setup to end' && flock 9; }
is_installed "${lists[@]}" || install_lists "${lists[@]}"
