#!/usr/bin/env bash
# Shows that the tests are green every time: `make test` twice on the machine as it is and once beside four processes
# that burn its cores, then the quick tests ten times, each in another order. Takes one and a half hours; ends at the
# first failure. STEADY_LOGS=folder keeps what the runs say.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

logs=${STEADY_LOGS:-build/steady}
mkdir -p "$logs"
burners=()

end_burners() {
    ((${#burners[@]} == 0)) || kill "${burners[@]}" 2>/dev/null || true
    burners=()
}
trap end_burners EXIT

# One run of a command under a name, with its last line and its seconds.
one() {
    local name=$1 began=$SECONDS
    shift
    "$@" >"$logs/$name.log" 2>&1 || die "$name failed after $((SECONDS - began)) s: see $logs/$name.log"
    say "$name: $(grep -E '[0-9]+ passed' "$logs/$name.log" | tail -n 1 | tr -d =), $((SECONDS - began)) s in all"
}

one quiet-1 make test
one quiet-2 make test
for _ in 1 2 3 4; do
    while :; do :; done &
    burners+=($!)
done
one busy make test
end_burners
for number in 1 2 3 4 5 6 7 8 9 10; do
    one "order-$number" make test ARGS='tests/contracts tests/unit tests/api'
done
