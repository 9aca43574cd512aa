#!/usr/bin/env bash
# Run the image of build_image.sh as its users do who have least: a user without a name, no home, no network, the root
# file system and the raw data read-only. What it writes must be what the same revision writes without a container.
#
#   [WORK=...] [IMAGE=...] [PYTHON=.venv/bin/python] [HEADS=2] [NPROCS=2] [LEVELS="participant group"] tools/check_image.sh

. "$(dirname "$0")/containers.sh"
ensure podman:podman crun:crun conmon:conmon jq:jq
PYTHON=$(realpath -s "${PYTHON:-.venv/bin/python}")
PLACE="$WORK/image"
OPTIONS=(--nprocs "${NPROCS:-2}" --omp-nthreads 1 --mem 4 --device cpu)
USER_ID=12345

inspect() { buildah "${STORAGE[@]}" inspect --type image --format "{{$1}}" "$IMAGE"; }

in_container() {
    podman_run --network none --read-only --user $USER_ID:$USER_ID --env HOME=/nonexistent \
        --volume "$PLACE/bids:/bids:ro" --volume "$PLACE/contained:/out" "$IMAGE" "$@"
}

# Everything but logs, reports (which tell of the runs in the logs) and, in the dataset's description, the container.
same_results() {
    diff -rq --exclude logs --exclude '*.html' --exclude dataset_description.json "$PLACE/bare" "$PLACE/contained" &&
        diff "$PLACE/bare/dataset_description.json" \
            <(jq 'del(.GeneratedBy[].Container)' "$PLACE/contained/dataset_description.json")
}

revision=$(inspect 'index .OCIv1.Config.Labels "org.opencontainers.image.revision"')
rm -rf "$PLACE" && mkdir -p "$PLACE/code" "$PLACE/contained"
chown $USER_ID:$USER_ID "$PLACE/contained"
git archive "$revision" | tar -x -C "$PLACE/code"
export PYTHONPATH="$PLACE/code" OMP_NUM_THREADS=1
cd "$PLACE/code"  # where `-m` looks first
"$PYTHON" tools/simulated_heads.py "$PLACE" "${HEADS:-2}"
[ "$(in_container --version)" = "$("$PYTHON" -m unibrain_bids --version)" ]
for level in ${LEVELS:-participant group}; do
    say "$level level of ${revision:0:12}, without a container and in it ..."
    began=$SECONDS
    "$PYTHON" -m unibrain_bids "$PLACE/bids" "$PLACE/bare" "$level" "${OPTIONS[@]}" 2>"$WORK/logs/bare-$level.log" &
    in_container /bids /out "$level" "${OPTIONS[@]}" 2>"$WORK/logs/contained-$level.log"
    wait $!
    say "... in $((SECONDS - began)) s."
    same_results
done
[ -z "$(find "$PLACE/contained" ! -uid $USER_ID)" ]
say "The image writes the same $(find "$PLACE/contained" -path "$PLACE/contained/logs" -prune -o -type f -print | wc -l) files."
