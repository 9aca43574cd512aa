# Sourced by the scripts beside it: containers without a daemon, as root, in a store of their own.
#
#   WORK   folder for everything that is made (work/containers): store, archive, SIF, logs
#   IMAGE  name of the image (localhost/unibrain-bids:VERSION)
#   BASE   base image to pull; empty: a stand-in made by debootstrap, for machines that reach no image registry

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
WORK=$(realpath -m "${WORK:-work/containers}")
IMAGE=${IMAGE:-localhost/unibrain-bids:$(sed -n 's/^__version__ = "\(.*\)"/\1/p' unibrain_bids/__init__.py)}
BASE=${BASE:-}
STAND_IN=localhost/stand-in/python:3.11-slim-bookworm
STORAGE=(--root "$WORK/store" --runroot "$WORK/run" --storage-driver overlay)
mkdir -p "$WORK/logs"

say() { echo "$(date +%T) $*"; }

# ensure COMMAND:PACKAGE...: the Debian packages of the commands that are missing.
ensure() {
    local pair packages=()
    for pair; do command -v "${pair%%:*}" >/dev/null || packages+=("${pair#*:}"); done
    [ ${#packages[@]} = 0 ] && return
    say "Installing ${packages[*]} ..."
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
}

debian_mirror() {
    local found
    found=$(grep -hoE '^(URIs:|deb) .*' /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null |
        grep -oE 'https?://[^ ]+' | head -1) || true
    echo "${found:-http://deb.debian.org/debian}"
}

# The options that let pip inside a build find what pip on this machine finds: certificates, configuration, local folders.
pip_mounts() {
    local path conf="$WORK/pip.conf"
    { echo "[global]"; python3 -m pip config list 2>/dev/null | sed -nE "s/^(global|:env:)\.([a-z-]+)='(.*)'$/\2 = \3/p" | sort -u -t= -k1,1; } >"$conf"
    echo "--volume=$conf:/etc/pip.conf:ro"
    for path in $(grep -oE '/[^ ]+' "$conf" | sed -E 's|^/+|/|; s|/simple$||') /etc/ssl/certs; do
        [ -d "$path" ] && echo "--volume=$path:$path:ro"
    done | sort -u
}

# podman_run [podman's options] IMAGE [arguments]. In a mount namespace of its own, and without a control group, so that
# it also works inside virtual machines and containers that lack the rights for one.
podman_run() {
    unshare --mount --propagation private bash -c '
        umount /sys/fs/cgroup/unified 2>/dev/null
        exec podman "$@"' podman "${STORAGE[@]}" --cgroup-manager cgroupfs --events-backend file run --rm \
        --cgroups disabled --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 "$@"
}
