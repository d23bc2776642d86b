#!/usr/bin/env bash
# Runs a command in a clone of the last commit on a Debian that has Python, git and make, and nothing else: what a new
# user meets. For root; needs debootstrap, and fetches everything anew.
#   scripts/bare.sh make test             as root
#   scripts/bare.sh --user make test      as a user without sudo
#   scripts/bare.sh --user python3 scripts/first_answer.py      make serve, and one question
# SUITE=trixie takes another release; BARE=folder keeps the machine there, for the next command to find.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

readonly SUITE=${SUITE:-bookworm}
readonly PACKAGES=python3,git,make,ca-certificates
user=root
if [[ ${1:-} == --user ]]; then
    user=somebody
    shift
fi
(($#)) || die "which command? Such as: scripts/bare.sh make test"
((EUID == 0)) || die "only root can make a machine of its own"
command -v debootstrap >/dev/null || die "debootstrap is missing; sudo apt-get install -y debootstrap brings it"

if [[ -n ${BARE:-} ]]; then
    machine=$(realpath -m "$BARE")
else
    machine=$(mktemp -d)
    chmod 755 "$machine" # the user inside has to reach his own root
    trap 'rm -rf "$machine"' EXIT
fi
if [[ ! -e $machine/etc/debian_version ]]; then
    say "making a bare $SUITE in $machine"
    debootstrap --variant=minbase --include="$PACKAGES" "$SUITE" "$machine" >"$machine.debootstrap" ||
        die "debootstrap failed; see $machine.debootstrap"
    rm -f "$machine.debootstrap"
    chroot "$machine" useradd --create-home somebody
fi

# How this machine reaches the network, it does: certificates and proxies are no merit of a distribution.
for file in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt; do
    [[ ! -e $file ]] || cp --dereference "$file" "$machine$file"
done
mapfile -t network < <(env | grep -iE '^(https?_proxy|no_proxy|SSL_CERT_FILE|PIP_CERT|REQUESTS_CA_BUNDLE)=' || true)

home=$(chroot "$machine" sh -c "echo ~$user")
rm -rf "$machine$home/ain-server"
git clone --quiet --no-hardlinks . "$machine$home/ain-server"
chroot "$machine" chown -R "$user:" "$home/ain-server"

# Inside: /proc of its own processes, which all end with the command; mounts that nobody else sees.
# shellcheck disable=SC2016 # expanded inside
readonly INSIDE='
    mount -t proc proc "$1/proc"
    mount --rbind /sys "$1/sys"
    mount --rbind /dev "$1/dev"
    mount -t tmpfs shm "$1/dev/shm"
    exec chroot "$1" setpriv --reuid "$2" --regid "$2" --init-groups env -i "${@:4}" bash -c "$3"'
line="cd ~/ain-server && ${*@Q}"
(($# > 1)) || line="cd ~/ain-server && $1"
say "running as $user: $*"
unshare --mount --pid --fork --kill-child bash -euc "$INSIDE" inside "$machine" "$user" "$line" \
    HOME="$home" USER="$user" PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "${network[@]}"
