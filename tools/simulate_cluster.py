#!/usr/bin/env python3
"""Simulate the scheduler's side of a large run: many heads, as job arrays, on a cluster with failures.

    python tools/simulate_cluster.py --heads 50000 --per-task 25 --slots 200

A task takes participants one after the other, as docs/slurm-array.sh does: first it starts (Python, the model), then
each head takes its time (log-normal around the measured mean). A task may be killed at any moment (preempted, node
lost): with `--requeue` it starts again and skips what is complete; what is still missing after a round is submitted
again. Prints how long it all takes, how much of the machine time is of use, and what the scheduler has to bear.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cluster:
    """The cluster and the work: times in seconds, `kill_rate` in kills per hour and task."""

    slots: int
    start_s: float
    head_s: float
    spread: float
    check_s: float
    kill_rate: float
    limit_s: float
    array_size: int


@dataclass
class Outcome:
    """What became of a run."""

    seconds: float = 0.0
    busy: float = 0.0
    useful: float = 0.0
    kills: int = 0
    rounds: int = 0
    submissions: int = 0
    starts: list[float] = field(default_factory=list)


def simulate(heads: int, per_task: int, cluster: Cluster, *, requeue: bool, seed: int) -> Outcome:
    """Run all heads to the end, round after round; nothing that is complete is ever done again."""
    rng = random.Random(seed)
    times = [cluster.head_s * math.exp(rng.gauss(-(cluster.spread**2) / 2, cluster.spread)) for _ in range(heads)]
    done = [False] * heads
    outcome = Outcome()
    while not all(done):
        outcome.rounds += 1
        tasks = [range(first, min(first + per_task, heads)) for first in range(0, heads, per_task)]
        tasks = [task for task in tasks if not all(done[head] for head in task)]
        outcome.submissions += math.ceil(len(tasks) / cluster.array_size)
        _run_round(tasks, times, done, cluster, outcome, requeue=requeue, rng=rng)
    outcome.useful = sum(times)
    return outcome


def _run_round(
    tasks: list[range],
    times: list[float],
    done: list[bool],
    cluster: Cluster,
    outcome: Outcome,
    *,
    requeue: bool,
    rng: random.Random,
) -> None:
    """Run the tasks of one array on the slots, in the order of the queue."""
    slots = [outcome.seconds] * min(cluster.slots, len(tasks))
    queue = list(reversed(tasks))
    while queue:
        task, begin = queue.pop(), heapq.heappop(slots)
        outcome.starts.append(begin)
        end, killed = _run_task(task, begin, times, done, cluster, rng)
        outcome.busy += end - begin
        outcome.kills += killed
        if killed and requeue:
            queue.insert(0, task)
        heapq.heappush(slots, end)
    outcome.seconds = max(slots)


def _run_task(
    task: range, begin: float, times: list[float], done: list[bool], cluster: Cluster, rng: random.Random
) -> tuple[float, bool]:
    """Run one task until it is done, killed or out of time; returns its end and whether it was killed."""
    until_kill = rng.expovariate(cluster.kill_rate / 3600) if cluster.kill_rate else math.inf
    deadline = begin + min(until_kill, cluster.limit_s)
    now = begin + cluster.start_s
    for head in task:
        now += cluster.check_s if done[head] else times[head]
        if now > deadline:
            return deadline, True
        done[head] = True
    return now, False


def peak_per_minute(starts: list[float]) -> int:
    """Return the largest number of tasks that begin within one minute, after the first wave."""
    minutes: dict[int, int] = {}
    for start in starts:
        if start > 0:
            minutes[int(start // 60)] = minutes.get(int(start // 60), 0) + 1
    return max(minutes.values(), default=0)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; the defaults are the figures of docs/scaling.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, default=50_000)
    parser.add_argument("--per-task", type=int, nargs="+", default=[1, 10, 25, 100, 500])
    parser.add_argument("--slots", type=int, default=200, help="tasks that run at the same time")
    parser.add_argument("--start", type=float, default=6.0, help="seconds until the first head begins")
    parser.add_argument("--head", type=float, default=40.0, help="mean seconds of one head")
    parser.add_argument("--spread", type=float, default=0.3, help="standard deviation of its logarithm")
    parser.add_argument("--check", type=float, default=0.1, help="seconds to see that a head is complete")
    parser.add_argument("--kills", type=float, default=0.05, help="kills per hour of a task (preemption, lost nodes)")
    parser.add_argument("--limit", type=float, default=4.0, help="time limit of a task in hours")
    parser.add_argument("--array-size", type=int, default=1000, help="tasks in one array (Slurm: MaxArraySize - 1)")
    parser.add_argument("--no-requeue", action="store_true", help="killed tasks wait for the next round")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main() -> None:
    """Print one row for each number of heads per task."""
    options = build_parser().parse_args()
    cluster = Cluster(
        slots=options.slots,
        start_s=options.start,
        head_s=options.head,
        spread=options.spread,
        check_s=options.check,
        kill_rate=options.kills,
        limit_s=options.limit * 3600,
        array_size=options.array_size,
    )
    print("| heads per task | hours | useful | kills | rounds | arrays submitted | starts per minute at most |")
    print("|---|---|---|---|---|---|---|")
    for per_task in options.per_task:
        outcome = simulate(options.heads, per_task, cluster, requeue=not options.no_requeue, seed=options.seed)
        useful = f"{outcome.useful / outcome.busy:.0%}"
        row = (per_task, f"{outcome.seconds / 3600:.1f}", useful, outcome.kills, outcome.rounds, outcome.submissions)
        print("|", *(f"{cell} |" for cell in (*row, peak_per_minute(outcome.starts))))


if __name__ == "__main__":
    main()
