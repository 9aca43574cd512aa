#!/bin/bash
# A job array in which each task runs a few participants; all tasks write to the same output folder.
#
#   sbatch --array=1-200%50 docs/slurm-array.sh BIDS_DIR OUTPUT_DIR [options of unibrain-bids]
#
#   PER_TASK  participants of one task (1): with PER_TASK=25, task 1 takes the first 25 by their names, and so on
#   UNIBRAIN  the command (unibrain-bids), for example
#             "apptainer run --cleanenv --containall --no-home --bind /data,/scratch unibrain-bids.sif"
#
# Any task can be killed, requeued or submitted again at any time: what is complete is left alone. Options of sbatch
# (--mem, --time, --output, ...) on its command line win over those below.
#
#SBATCH --job-name=unibrain-bids
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH --time=02:00:00
#SBATCH --requeue
#SBATCH --output=unibrain-bids-%A_%a.log
#SBATCH --open-mode=append

set -euo pipefail
bids=$1 out=$2
shift 2
last=$((SLURM_ARRAY_TASK_ID * ${PER_TASK:-1}))
first=$((last - ${PER_TASK:-1} + 1))
mapfile -t participants < <(cd "$bids" && printf '%s\n' sub-*/ | sed -n "$first,${last}s|/\$||p")
if [ "${#participants[@]}" = 0 ]; then
    echo "Task $SLURM_ARRAY_TASK_ID comes after the last participant: nothing to do."
    exit 0
fi
# In the place of this shell, so that signals reach the program, and its exit code is the task's.
exec ${UNIBRAIN:-unibrain-bids} "$bids" "$out" participant --participant-label "${participants[@]}" \
    --nprocs "${SLURM_CPUS_PER_TASK:-1}" --skip-bids-validation "$@"
