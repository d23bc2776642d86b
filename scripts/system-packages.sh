#!/usr/bin/env bash
# Looks for the libraries that no Python package brings, and says which package has the missing ones.
#   scripts/system-packages.sh LIST...              fails where one is missing
#   scripts/system-packages.sh --install LIST...    installs them: for root on Debian and Ubuntu
# LIST is what is going to be installed, such as requirements/cpu.txt.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

install=
if [[ ${1:-} == --install ]]; then
    install=yes
    shift
fi

python=$(find_python)
missing=()
need_library() {
    "$python" -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' "$1" 2>/dev/null || missing+=("$2")
}

for list in "$@"; do
    case $list in
        */cpu.txt) need_library libnuma.so.1 libnuma1 ;;      # vLLM's CPU kernels are linked against it
        */dev.txt) need_library libfribidi.so.0 libfribidi0 ;; # Pillow orders Arabic letters with it in test pictures
    esac
done

((${#missing[@]})) || exit 0
if [[ -z $install ]]; then
    die "missing: ${missing[*]}; on Debian and Ubuntu: sudo apt-get install -y ${missing[*]}"
fi
((EUID == 0)) || die "only root can install ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -q install -y --no-install-recommends "${missing[@]}"
