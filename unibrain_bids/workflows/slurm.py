"""Nipype's SLURM plugin, made to survive what happens on a cluster.

Of Nipype's own: a job that is killed ends the whole run with a `TypeError`, as does one that cannot be submitted; jobs
stay behind when the run is interrupted; each poll calls `squeue` once per job; an unreachable controller counts as the
job's failure; a path with a space, or a missing LOGNAME, breaks the submission; a job's threads share one CPU. Here a
job that is killed or refused is an error of its node, what else runs goes on, and the queue is asked once for all
jobs, every few seconds.
"""

from __future__ import annotations

import logging
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from traceback import format_exception
from typing import Any

from nipype.pipeline.plugins.slurm import SLURMPlugin

from unibrain_bids.errors import UnibrainError, UsageError, WorkerKilledError

logger = logging.getLogger(__name__)

# Seconds: between two looks at the queue, and for a result to cross the network once its job is done.
POLL, PATIENCE = 5.0, 60.0
MAX_JOBS = 500  # schedulers limit what one user may queue, and refuse the rest
_DONE = ("COMPLETED", "GONE")  # GONE: so long over that Slurm has forgotten it
_KILLED = ("BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "REVOKED", "TIMEOUT")


class SafeSlurmPlugin(SLURMPlugin):
    """SLURM plugin in which a killed or refused job is an error of its node alone.

    Takes the `plugin_args` of Nipype's own plugin (`sbatch_args`, `template`, `max_jobs`, `max_tries`,
    `retry_timeout`), and `poll`, the seconds between two looks at the queue.
    """

    def __init__(self, plugin_args: Mapping[str, Any] | None = None) -> None:
        asked = {"max_jobs": MAX_JOBS, "max_tries": 5, "retry_timeout": 5, **(plugin_args or {})}
        super().__init__(plugin_args=asked)
        self._poll = float(asked.get("poll", POLL))
        self._states: dict[int, str] = {}
        self._submitted: dict[int, float] = {}
        self._ended: dict[int, float] = {}
        self._refused: dict[int, UnibrainError] = {}
        self._seen = self._next_look = 0.0

    def run(self, graph: Any, config: Any, updatehash: bool = False) -> None:
        """Run the nodes of `graph`; if that is interrupted, cancel the jobs."""
        try:
            super().run(graph, config, updatehash=updatehash)
        except BaseException:
            if jobs := [str(job) for job in self._pending if job > 0]:
                subprocess.run(["scancel", *jobs], capture_output=True, check=False)
            raise

    def _submit_job(self, node: Any, updatehash: bool = False) -> int:
        """Submit a node that has to be computed: what it has left of an earlier run is no result of this one."""
        for stale in Path(node.output_dir()).glob("result_*.pklz"):
            stale.unlink()
        return super()._submit_job(node, updatehash=updatehash)

    def _submit_batchtask(self, scriptfile: str, node: Any) -> int:
        """Submit a script; returns the job's number, or a negative one if it was refused."""
        asked = shlex.split(self._sbatch_args or "")
        log = Path(scriptfile).parent / "slurm-%j.out"
        # A job with fewer CPUs than threads is slower than one with a single thread. What the user asks for comes
        # later, and so wins.
        own = [f"--job-name={node.fullname}", f"--output={log}", f"--cpus-per-task={node.n_procs}"]
        words = ["sbatch", "--parsable", *own, *asked, scriptfile]
        answer = _call(words)
        for _ in range(self._max_tries):
            if answer.returncode == 0:
                break
            time.sleep(self._retry_timeout)
            answer = _call(words)
        if answer.returncode == 0:
            job = int(answer.stdout.split(";")[0])
        else:
            job = -1 - len(self._refused)
            reason = " ".join(answer.stderr.split())
            self._refused[job] = UsageError(f"Slurm refuses the job: {reason}.", "See sbatch_args of the plugin file.")
        self._pending[job] = node.output_dir()
        self._submitted[job] = time.monotonic()
        return job

    def _is_pending(self, taskid: int) -> bool:
        return self._state(taskid) not in (*_DONE, *_KILLED)

    def _get_result(self, taskid: int) -> dict[str, Any] | None:
        if taskid in self._refused:
            return _failed(self._refused[taskid])
        if self._is_pending(taskid):
            return None
        state = self._state(taskid)
        if state in _DONE:
            if any(Path(self._pending[taskid]).glob("result_*.pklz")):
                return super()._get_result(taskid)
            if time.monotonic() - self._ended.setdefault(taskid, time.monotonic()) < PATIENCE:
                return None
        message = f"Slurm ended job {taskid} before it had a result ({state})."
        return _failed(WorkerKilledError(message, "More --mem or --time in sbatch_args may help; run again to go on."))

    def _state(self, job: int) -> str:
        """Return Slurm's word for the state of a job, PENDING until the queue has been looked at."""
        if time.monotonic() >= self._next_look:
            self._look()
        return self._states.get(job, "GONE") if self._submitted[job] < self._seen else "PENDING"

    def _look(self) -> None:
        """Ask for the states of all jobs; as long as there is no answer, they stay what they were."""
        began = time.monotonic()
        jobs = ",".join(str(job) for job in self._pending if job > 0)
        answer = _call(["squeue", "--noheader", "--states=all", "--format=%A %T", f"--jobs={jobs}"])
        self._next_look = time.monotonic() + self._poll
        if answer.returncode == 0 or "Invalid job id" in answer.stderr:  # so it says of a single job that is forgotten
            self._seen = began
            self._states = {int(job): state for job, state in map(str.split, answer.stdout.splitlines())}
        else:
            logger.warning("Slurm does not answer (%s); asking again", " ".join(answer.stderr.split()))


def _call(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    except OSError as error:
        return subprocess.CompletedProcess(words, 127, "", f"{words[0]}: {error.strerror}")


def _failed(error: UnibrainError) -> dict[str, Any]:
    return {"result": None, "traceback": format_exception(error)}
