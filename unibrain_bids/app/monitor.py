"""Memory and CPU of a run: of this process and of all its workers on this machine."""

from __future__ import annotations

import threading
import time
from contextlib import suppress


class ResourceMonitor(threading.Thread):
    """Looks at the processes of the run, once a second.

    Attributes
    ----------
    samples
        One row for each look: seconds since the start, number of processes, their resident memory together in MB (pages
        that they share count for each), and the CPU seconds that they have used so far.
    """

    def __init__(self, *, interval: float = 1.0) -> None:
        super().__init__(name="resource-monitor", daemon=True)
        self.samples: list[dict[str, float]] = []
        self._interval = interval
        self._begun = time.monotonic()
        self._ended = threading.Event()

    def run(self) -> None:
        """Look until `close`."""
        while True:
            self.samples.append(self._look())
            if self._ended.wait(self._interval):
                return

    def close(self) -> None:
        """Look once more, and stop."""
        self._ended.set()
        self.join()
        self.samples.append(self._look())

    def _look(self) -> dict[str, float]:
        import psutil

        seen = []
        own = psutil.Process()
        for process in [own, *own.children(recursive=True)]:
            with suppress(psutil.Error), process.oneshot():  # it may end while we look
                used = process.cpu_times()
                seen.append((process.memory_info().rss / 1e6, used.user + used.system))
        return {
            "seconds": round(time.monotonic() - self._begun, 1),
            "processes": len(seen),
            "memory_mb": round(sum(memory for memory, _ in seen), 1),
            "cpu_seconds": round(sum(cpu for _, cpu in seen), 1),
        }
