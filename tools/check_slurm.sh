#!/usr/bin/env bash
# Start a Slurm of one node on this machine, and run tests/containers/test_slurm*.py on it: as root on Debian or Ubuntu.
#
#   [WORK=...] [PYTHON=.venv/bin/python] tools/check_slurm.sh [pytest's arguments]

. "$(dirname "$0")/containers.sh"
ensure slurmctld:slurm-wlm munged:munge
PLACE="$WORK/slurm"
node=$(hostname -s)

start_munge() {
    munge -n >/dev/null 2>&1 && return
    install -d -o munge -g munge -m 755 /run/munge
    runuser -u munge -- /usr/sbin/munged
    our_munge=1
}

# Without control groups, which containers and small machines lack: slurmd measures the jobs' memory every second, and
# kills those that use more than they asked for.
configure() {
    cat >"$PLACE/slurm.conf" <<CONF
ClusterName=check
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=bf_interval=1
ReturnToService=2
KillWait=5
StateSaveLocation=$PLACE/state
SlurmdSpoolDir=$PLACE/spool
SlurmctldPidFile=$PLACE/slurmctld.pid
SlurmdPidFile=$PLACE/slurmd.pid
SlurmctldLogFile=$PLACE/slurmctld.log
SlurmdLogFile=$PLACE/slurmd.log
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(awk '/MemAvailable/ {print int($2 / 1024)}' /proc/meminfo)
PartitionName=main Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
}

stop() {
    scancel --state=PENDING,RUNNING --user="$(id -un)" 2>/dev/null || true
    for daemon in slurmctld slurmd; do
        [ ! -s "$PLACE/$daemon.pid" ] || kill "$(cat "$PLACE/$daemon.pid")" || true
    done
    [ -z "$our_munge" ] || kill "$(cat /run/munge/munged.pid)" || true
}

our_munge=
unset OMP_NUM_THREADS  # nproc would tell that
rm -rf "$PLACE" && mkdir -p "$PLACE/state" "$PLACE/spool"
configure
export SLURM_CONF="$PLACE/slurm.conf"
trap stop EXIT
start_munge
slurmctld -c -i
slurmd
for _ in $(seq 60); do
    [ "$(sinfo --noheader --format=%t)" = idle ] && break
    sleep 1
done
say "Slurm $(sinfo --version | cut -d ' ' -f 2) with one node of $(nproc) CPUs:"
"${PYTHON:-.venv/bin/python}" -m pytest tests/containers/test_slurm_plugin.py tests/containers/test_slurm.py -v --durations 0 "$@" 2>&1 | tee "$WORK/logs/slurm.log"
