#!/usr/bin/env bash
# Build the container image of the committed revision, as root on Debian or Ubuntu, without a daemon:
#
#   [WORK=...] [IMAGE=...] [BASE=...] [TORCH_INDEX=...] tools/build_image.sh
#
# TORCH_INDEX as in the Dockerfile; unset: what pip on this machine is configured for. The other settings: containers.sh.

. "$(dirname "$0")/containers.sh"
ensure buildah:buildah git:git
ISOLATION=(--isolation chroot --pull-never)

# The smallest Debian with Python, in the place of python:3.11-slim-bookworm.
build_stand_in() {
    buildah "${STORAGE[@]}" inspect --type image "$STAND_IN" >/dev/null 2>&1 && return
    ensure debootstrap:debootstrap
    say "Making the stand-in for the base image ..."
    rm -rf "$WORK/base" && mkdir -p "$WORK/base"
    debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv \
        bookworm "$WORK/base/root" "$(debian_mirror)" >"$WORK/logs/debootstrap.log"
    rm -rf "$WORK"/base/root/var/cache/apt/* "$WORK"/base/root/var/lib/apt/lists/*
    tar -C "$WORK/base/root" --numeric-owner --exclude='./dev/*' -cf "$WORK/base/root.tar" .
    printf 'FROM scratch\nADD root.tar /\n' >"$WORK/base/Dockerfile"
    buildah "${STORAGE[@]}" build "${ISOLATION[@]}" --tag "$STAND_IN" "$WORK/base" >/dev/null
    rm -rf "$WORK/base"
}

if [ -z "$BASE" ]; then
    build_stand_in
    BASE=$STAND_IN
else
    ISOLATION=(--isolation chroot)
fi

revision=$(git rev-parse HEAD)
say "Building $IMAGE from ${revision:0:12} on $BASE ..."
context=$(mktemp -d "$WORK/context.XXXX")
trap 'rm -rf "$context"' EXIT
git archive HEAD | tar -x -C "$context"
mapfile -t mounts < <(pip_mounts)
began=$SECONDS
buildah "${STORAGE[@]}" build "${ISOLATION[@]}" --layers "${mounts[@]}" \
    --build-arg BASE="$BASE" --build-arg TORCH_INDEX="${TORCH_INDEX-}" \
    --build-arg IMAGE="${IMAGE%:*}" --build-arg TAG="${IMAGE##*:}" \
    --build-arg REVISION="$revision" --build-arg CREATED="$(git show --no-patch --format=%cI HEAD)" \
    --tag "$IMAGE" "$context" >"$WORK/logs/build.log" 2>&1 || { tail -30 "$WORK/logs/build.log"; exit 1; }
bytes=$(buildah "${STORAGE[@]}" images --json "$IMAGE" | grep -oE '"size": "[^"]+"' | head -1)
say "Built in $((SECONDS - began)) s; ${bytes//\"/}."
