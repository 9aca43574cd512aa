#!/usr/bin/env bash
# Build the Apptainer image from the image of build_image.sh, and run it as clusters do, on the dataset that
# check_image.sh has made; what it writes must be what the other ways write.
#
#   [WORK=...] [IMAGE=...] [SQUASH="-comp gzip"] tools/build_sif.sh
#
# SQUASH is for mksquashfs: by default zstd, some times faster than gzip and as small, which Linux reads since 4.14.
#
# Apptainer is not in every Debian: it runs in a folder with a Debian unstable, as the user 1000 of that.

. "$(dirname "$0")/containers.sh"
ensure debootstrap:debootstrap buildah:buildah
SYSTEM="$WORK/apptainer"
PLACE="$WORK/sif"
SQUASH=${SQUASH:--comp zstd -Xcompression-level 3 -mem 1G}
RUN=(apptainer run --cleanenv --containall --no-home --net --network none)

make_system() {
    [ ! -x "$SYSTEM/usr/bin/apptainer" ] || return 0
    say "Installing a Debian with Apptainer ..."
    rm -rf "$SYSTEM"
    debootstrap --variant=minbase --include=apptainer,e2fsprogs,squashfuse,fuse-overlayfs,fuse3 \
        sid "$SYSTEM" "$(debian_mirror)" >"$WORK/logs/debootstrap-sid.log"
    chroot "$SYSTEM" useradd --uid 1000 --create-home user
}

# in_system COMMAND...: run it as the user 1000 in $SYSTEM; $PLACE is /mnt there.
in_system() {
    unshare --mount --propagation private bash -ec '
        system=$1 place=$2
        shift 2
        mount --bind "$system" "$system"
        mount --rbind /dev "$system/dev"
        mount --rbind /sys "$system/sys"
        mount -t proc proc "$system/proc"
        mount -t tmpfs tmpfs "$system/run"
        mknod -m 666 "$system/run/fuse" c 10 229  # the one of the machine may be for root alone
        [ ! -e /dev/fuse ] || mount --bind "$system/run/fuse" "$system/dev/fuse"
        mount --bind "$place" "$system/mnt"
        for file in /etc/hosts /etc/resolv.conf; do  # Apptainer copies both into the image
            touch "$system$file"
            mount --bind "$file" "$system$file"
        done
        mkdir -p "$system/.old"
        cd "$system"
        pivot_root . .old
        cd /mnt
        umount -l /.old
        exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/home/user LANG=C.UTF-8 \
            setpriv --reuid 1000 --regid 1000 --init-groups "$@"' - "$SYSTEM" "$PLACE" "$@"
}

make_system
rm -rf "$PLACE" && mkdir -p "$PLACE/out"
say "Building the SIF from $IMAGE ..."
began=$SECONDS
buildah "${STORAGE[@]}" push --quiet "$IMAGE" "docker-archive:$PLACE/unibrain-bids.tar:$IMAGE"
cp Singularity.def "$PLACE"
chown -R 1000:1000 "$PLACE"
in_system apptainer build --fakeroot --mksquashfs-args "$SQUASH" unibrain-bids.sif Singularity.def \
    >"$WORK/logs/sif.log" 2>&1 || { tail -30 "$WORK/logs/sif.log"; exit 1; }
rm "$PLACE/unibrain-bids.tar"
say "Built in $((SECONDS - began)) s; $(du -h "$PLACE/unibrain-bids.sif" | cut -f 1)."
in_system apptainer run-help unibrain-bids.sif
in_system apptainer test unibrain-bids.sif

cp -r "$WORK/image/bids" "$PLACE/bids"
say "Participant level of one head ..."
began=$SECONDS
in_system "${RUN[@]}" --bind /mnt/bids:/data:ro,/mnt/out:/out unibrain-bids.sif \
    /data /out participant --participant-label 01 --nprocs 1 --device cpu --work-dir /out/work
say "... in $((SECONDS - began)) s."
diff -rq "$WORK/image/bare/sub-01" "$PLACE/out/sub-01"
say "The SIF writes the same files as the bare revision."
