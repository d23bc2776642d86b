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
fingerprint() { cat pyproject.toml scripts/setup.sh scripts/system.sh requirements/bootstrap.txt "$@" | sha256sum; }

is_installed() { [[ -x $VENV/bin/python && -r $STAMP && $(<"$STAMP") == "$(fingerprint "$@")" ]]; }

readonly TELL_EVERY_S=5

# telling WORDS COMMAND...: runs the command, and says every few seconds what WORDS prints: silence looks like a hang.
telling() {
    local words=$1 since=$SECONDS teller status=0
    # The last sleep outlives this function: it must hold neither the caller's pipes nor the lock.
    while sleep "$TELL_EVERY_S" >/dev/null 2>&1 9>&-; do say "$((SECONDS - since)) s: $("$words")"; done &
    teller=$!
    "${@:2}" || status=$?
    kill "$teller"
    wait "$teller" 2>/dev/null || true
    return "$status"
}

cached_mib() { du -sm "$("$VENV/bin/uv" cache dir)" 2>/dev/null | cut -f1; }
fetched() { echo "$(($(cached_mib) - cached_before)) MiB fetched and unpacked, of at most 6000"; }
compiled() { echo "$(find "$VENV" -name '*.pyc' | wc -l) of $(find "$VENV" -name '*.py' | wc -l) files compiled"; }

# Exactly the files of these lists, nothing beside them. They are complete: no dependency is looked at (see requirements/cpu.in).
sync_venv() { "$VENV/bin/uv" pip sync --require-hashes "$@"; }

# On a terminal uv shows its progress itself. In a log its list of every package would only be noise.
fetch_packages() {
    if [[ -t 2 ]]; then sync_venv "$@"; return; fi
    cached_before=$(cached_mib || echo 0)
    telling fetched sync_venv "$@" 2>&1 | sed '/^ [-+~] /d; /^ *Download/d' >&2
}

# Now, else the first start would compile, and every start where Python keeps no bytecode.
compile_packages() { telling compiled sync_venv --quiet --compile-bytecode "$@"; }

install_lists() {
    local started=$SECONDS
    make_venv
    need_libraries_of "$@"
    rm -f "$STAMP"
    say "installing $(cat "$@" | grep -c '^[a-z]') packages for the $engine engine; the first time this fetches some 2 GB"
    fetch_packages requirements/bootstrap.txt "$@"
    say 'compiling them to bytecode'
    compile_packages requirements/bootstrap.txt "$@"
    # The project itself: a link to this folder, and the command ain-serve.
    "$VENV/bin/uv" pip install --quiet --no-deps --no-build-isolation --editable .
    fingerprint "$@" >"$STAMP"
    say "done in $((SECONDS - started)) s"
}

lists=("${server[@]}")
# What has the tools keeps them: `make serve` takes nothing away from who works on the project.
if [[ ${1:-} == --dev || -x $VENV/bin/pytest ]]; then lists=("${everything[@]}"); fi

# Everything serves as well as the server alone: `make serve` leaves alone what `make test` set up.
if is_installed "${lists[@]}" || is_installed "${everything[@]}"; then exit; fi

exec 9<requirements # one setup at a time: the lock lives on the folder, and goes with this process
flock --nonblock 9 || { say 'waiting for another setup to end' && flock 9; }
is_installed "${lists[@]}" || install_lists "${lists[@]}"
