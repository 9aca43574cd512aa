"""Nipype's MultiProc plugin, made to survive the death of a worker.

When a worker process is killed from outside (commonly by the kernel, for want of memory), Python declares the whole
pool broken, and every task that was running gets `BrokenProcessPool`. Nipype swallows that and waits for ever. Here
those tasks end with `WorkerKilledError`, and the others go on in a new pool.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from traceback import format_exception
from typing import Any

from nipype.pipeline.plugins.multiproc import MultiProcPlugin, process_initializer

from unibrain_bids.errors import WorkerKilledError
from unibrain_bids.workflows.logs import start_logging

# Modules that every worker needs: loaded once, in the process that all workers are forked from.
PRELOADED = ["nipype.pipeline.engine", "torch", "unibrain_bids.interfaces.predict"]
_PATIENCE_SECONDS = 5.0


def _start_worker(cwd: str, log_file: Path | None, verbosity: int) -> None:
    process_initializer(cwd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the main process ends the workers
    start_logging(log_file, verbosity)


class SafeMultiProcPlugin(MultiProcPlugin):
    """MultiProc in which a killed worker is an error of the nodes that were running, not the end of all progress.

    Takes the `plugin_args` of Nipype's own plugin, and `log_file` and `verbosity` for `start_logging` in the workers.
    These come from a fork server: unlike plain forks they may use CUDA and OpenMP whatever this process did before.
    """

    pool: ProcessPoolExecutor

    def __init__(self, plugin_args: Mapping[str, Any] | None = None) -> None:
        super().__init__(plugin_args={"raise_insufficient": False, **(plugin_args or {}), "mp_context": "forkserver"})
        self.pool.shutdown(wait=False)
        self.pool = self._new_pool()

    def _new_pool(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        start = (self._cwd, self.plugin_args.get("log_file"), self.plugin_args.get("verbosity", 0))
        return ProcessPoolExecutor(self.processors, mp_context=context, initializer=_start_worker, initargs=start)

    def run(self, graph: Any, config: Any, updatehash: bool = False) -> None:
        """Run the nodes of `graph`; if that is interrupted, end the workers at once."""
        try:
            super().run(graph, config, updatehash=updatehash)
        except BaseException:
            for process in list((self.pool._processes or {}).values()):
                process.terminate()
            # Python joins the pool's thread at its exit, but may wake it through a pipe that the thread is just closing
            # (seen in CPython 3.11: OSError): it is given the time to end before. It may be stuck, so not for ever.
            thread: Any = self.pool._executor_manager_thread
            self.pool.shutdown(wait=False, cancel_futures=True)
            if thread is not None:
                thread.join(_PATIENCE_SECONDS)
            raise

    def _async_callback(self, args: Future[dict[str, Any]]) -> None:
        if not args.cancelled() and args.exception() is None:
            super()._async_callback(args)

    def _get_result(self, taskid: int) -> dict[str, Any] | None:
        future = self._task_obj[taskid]
        error = future.exception() if future.done() else None
        if error is None:
            return super()._get_result(taskid)
        if isinstance(error, BrokenProcessPool):
            error = WorkerKilledError(
                "A worker process was killed while this ran, most likely for want of memory.",
                "Run again with fewer --nprocs or a lower --mem.",
            )
        return {"result": None, "traceback": format_exception(error), "taskid": taskid}

    def _sort_jobs(self, jobids: Any, scheduler: str = "tsort") -> list[int]:
        """Let scans that have begun go first; else all would begin before the first one is done."""
        return sorted(super()._sort_jobs(jobids, scheduler), key=lambda job: not self.procs[job].input_source)

    def _submit_job(self, node: Any, updatehash: bool = False) -> int:
        try:
            return super()._submit_job(node, updatehash=updatehash)
        except BrokenProcessPool:
            self.pool.shutdown(wait=False)
            self.pool = self._new_pool()
            return super()._submit_job(node, updatehash=updatehash)
