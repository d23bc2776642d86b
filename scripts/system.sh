# shellcheck shell=bash
# Sourced by common.sh: what the machine must bring because no Python package does, and how it gets there.
#
#   as root, or with a sudo that asks nothing, on Debian and Ubuntu     the system's package is installed
#   as anybody else there                                               it is unpacked into .venv/system, for .venv alone
#   elsewhere                                                           a line says what is missing, and what lacks it
#
# All of it is libraries: nothing that is installed here starts anything.

readonly SYSTEM=$VENV/system # what was unpacked there

as_root() { if ((EUID == 0)); then "$@"; else sudo -n "$@"; fi; }
has_debian() { command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; }
may_install() { has_debian && as_root true 2>/dev/null; }

# Waits where another apt-get is at work, such as the one of unattended upgrades.
install_packages() {
    say "installing $* with apt-get; nothing is started"
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
    as_root "${apt[@]}" update && as_root "${apt[@]}" install -y --no-install-recommends "$@" >/dev/null
}

# apt-get with lists and a cache of its own, since only root may write the system's.
unpack_packages() {
    say "unpacking $* into $SYSTEM, since only root can install here"
    local scratch package status=0
    scratch=$(mktemp -d)
    mkdir -p "$scratch"/{state/lists,cache/archives}/partial "$SYSTEM"
    local apt=(apt-get -qq -o "Dir::State=$scratch/state" -o "Dir::Cache=$scratch/cache"
        -o Dir::State::status=/var/lib/dpkg/status)
    if "${apt[@]}" update && (cd "$scratch" && "${apt[@]}" download "$@"); then
        for package in "$scratch"/*.deb; do dpkg-deb --extract "$package" "$SYSTEM" || status=1; done
    else
        status=1
    fi
    rm -rf "$scratch"
    return "$status"
}

bring_packages() { { may_install && install_packages "$@"; } || { has_debian && unpack_packages "$@"; }; }

# ---- Libraries that programs of the environment load

has_library() { "$VENV/bin/python" -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' "$1" 2>/dev/null; }

# Has every Python of the environment load what was unpacked, by its path: whatever asks for it by name then has it.
load_unpacked() {
    local found folder
    found=$(find "$PWD/$SYSTEM" -name "$1" -print -quit)
    folder=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    [[ -z $found ]] || printf 'import ctypes; ctypes.CDLL("%s")\n' "$found" >"$folder/system-$1.pth"
}

# need_library FILE PACKAGE COMMAND: fails where it cannot be had. COMMAND is for who has no apt-get.
need_library() {
    if has_library "$1"; then return; fi
    if bring_packages "$2" && ! has_library "$1"; then load_unpacked "$1"; fi
    has_library "$1" || {
        say "$1 is missing; it comes with: sudo apt-get install -y $2 (Debian, Ubuntu), $3 (Fedora, RHEL)"
        return 1
    }
}

# What the packages in these lists load beside themselves.
need_libraries_of() {
    local list
    for list in "$@"; do
        case $list in
            */cpu.txt) need_library libnuma.so.1 libnuma1 'sudo dnf install -y numactl-libs' ||
                die "nothing can be served without it: vLLM's CPU kernels are linked against it" ;;
            */dev.txt) need_library libfribidi.so.0 libfribidi0 'sudo dnf install -y fribidi' ||
                say 'tests that draw Arabic will be skipped; nothing else wants it' ;;
        esac
    done
}

# ---- What Debian and Ubuntu take out of Python

# make_environment PYTHON: an environment with pip in it.
make_environment() {
    if ! "$1" -c 'import ensurepip' 2>/dev/null && may_install; then
        install_packages "$("$1" -c 'import sys; print("python{}.{}-venv".format(*sys.version_info))')" || true
    fi
    if "$1" -c 'import ensurepip' 2>/dev/null; then
        "$1" -m venv --clear "$VENV"
    else
        "$1" -m venv --clear --without-pip "$VENV" && bring_pip
    fi
}

# Puts pip into an environment that was made without it.
bring_pip() {
    local wheel
    has_debian && unpack_packages python3-pip-whl || return 1
    wheel=$(find "$SYSTEM" -name 'pip-*.whl' -print -quit)
    "$VENV/bin/python" "$wheel/pip" install --quiet --no-index --find-links "$(dirname "$wheel")" pip
}
