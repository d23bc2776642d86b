#!/usr/bin/env bash
# Looks for the libraries and programs that no Python package brings, and says which package has the missing ones.
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
need_program() {
    PATH=$PATH:/usr/sbin command -v "$1" >/dev/null || missing+=("$2") # not every user has /usr/sbin on PATH
}

for list in "$@"; do
    case $list in
        */cpu.txt) need_library libnuma.so.1 libnuma1 ;; # vLLM's CPU kernels are linked against it
        */dev.txt)
            need_library libfribidi.so.0 libfribidi0 # Pillow orders Arabic letters with it in test pictures
            need_program nginx nginx                 # balancers that the drills put before the server
            need_program haproxy haproxy
            ;;
    esac
done

((${#missing[@]})) || exit 0
if [[ -z $install ]]; then
    die "missing: ${missing[*]}; on Debian and Ubuntu: sudo scripts/system-packages.sh --install $*"
fi
((EUID == 0)) || die "only root can install ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive

# Debian starts what it installs, now and after each boot; the drills only want the programs. Packages ask this file
# whether they may: 101 means no.
readonly POLICY=/usr/sbin/policy-rc.d
if [[ ! -e $POLICY ]]; then
    trap 'rm -f "$POLICY"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod +x "$POLICY"
fi
apt-get -q update
apt-get -q install -y --no-install-recommends "${missing[@]}"
for package in "${missing[@]}"; do
    [[ ! -e /lib/systemd/system/$package.service ]] || systemctl disable --quiet "$package" || true
done
