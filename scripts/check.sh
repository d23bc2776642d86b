#!/usr/bin/env bash
# Everything that can be checked without running the server. Goes through all of it, and fails if any part did.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

failed=()
check() {
    say "$*"
    "$VENV/bin/$1" "${@:2}" || failed+=("$1")
}

check ruff check .
check ruff format --check .
check mypy
check hadolint Dockerfile docker/Dockerfile.cpu
check check-jsonschema --quiet --builtin-schema vendor.compose-spec docker/compose.yaml docker/compose.replicas.yaml
[[ ! -x $VENV/bin/shellcheck ]] || check shellcheck --external-sources --source-path=SCRIPTDIR scripts/*.sh docker/*.sh .ci/run

((${#failed[@]} == 0)) || die "failed: ${failed[*]}"
say 'all is well'
