"""Wall time and peak memory of `unibrain-bids` on one 256^3, 1 mm head, all derivatives, from a cold start.

    python benchmarks/speed.py --head HEAD_T1w.nii.gz [--peer-data ../shared/data] [--markdown docs/performance.md]

The head is resampled to 256 x 256 x 256 voxels of 1 mm and becomes a BIDS dataset of one scan. Every repetition is a
new process with a new output folder; memory is the sum over the process and its children (proportional share of shared
pages, Linux), looked at every 50 ms. With `--peer-data`, ANTs' affine of the same head, stripped by the mask just
computed, runs in `.venv-peers` (see benchmarks/peers.py) on the same cores right afterwards.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import nibabel as nib
import numpy as np

from unibrain_bids.imaging.resample import resample

ROOT = Path(__file__).resolve().parents[1]
APP = (sys.executable, "-m", "unibrain_bids")
SIZE = 256
_POLL_SECONDS = 0.05
# Peaks higher by less than this are not looked at: to ask for the proportional share slows the process down.
_NOTEWORTHY = 1.02


@dataclass(frozen=True)
class Cost:
    """What one command took: wall and CPU seconds, and the peak memory of its process tree in bytes."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def make_dataset(head: Path, folder: Path) -> Path:
    """Write a BIDS dataset whose only scan is `head` on a 256^3 grid of 1 mm, centred on the head's own grid."""
    image = nib.Nifti1Image.from_filename(head)
    centre = nib.affines.apply_affine(image.affine, (np.array(image.shape[:3]) - 1) / 2)
    affine = np.eye(4)
    affine[:3, 3] = centre - (SIZE - 1) / 2
    data = np.asarray(image.dataobj, dtype=np.float32).reshape(image.shape[:3])
    resampled = resample(data, image.affine, shape=(SIZE,) * 3, target_affine=affine)
    scan = folder / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    scan.parent.mkdir(parents=True)
    scale = 4000 / max(float(resampled.max()), 1e-6)
    nib.Nifti1Image(np.clip(resampled * scale, 0, 4000).astype(np.int16), affine).to_filename(scan)
    scan.with_name("sub-01_T1w.json").write_text("{}")
    description = {"Name": "Benchmark head", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (folder / "dataset_description.json").write_text(json.dumps(description))
    (folder / "README").write_text("One head, resampled to 256^3 voxels of 1 mm, to measure time and memory.\n")
    return scan


def run(command: Sequence[str], environment: dict[str, str]) -> Cost:
    """Run a command to its end and return its cost.

    Raises
    ------
    RuntimeError
        If it fails; the message ends with what it said.
    """
    with tempfile.TemporaryFile() as log:
        before = os.times()
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=ROOT)
        peak = 0
        while process.poll() is None:
            tree = _tree(process.pid)
            # What is resident is never less than the proportional share.
            if sum(map(_resident_bytes, tree)) > _NOTEWORTHY * peak:
                peak = max(peak, sum(map(_proportional_bytes, tree)))
            time.sleep(_POLL_SECONDS)
        seconds = time.perf_counter() - start
        after = os.times()
        if process.returncode:
            log.seek(0)
            said = log.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{shlex.join(command)} ended with {process.returncode}:\n{said}")
    cpu = (after.children_user + after.children_system) - (before.children_user + before.children_system)
    return Cost(seconds, cpu, peak)


def _tree(pid: int) -> list[int]:
    """A process and all its descendants; one that has just gone is left out."""
    try:
        children = [c for t in Path(f"/proc/{pid}/task").iterdir() for c in (t / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []
    return [pid, *(descendant for child in children for descendant in _tree(int(child)))]


def _resident_bytes(pid: int) -> int:
    """Memory of a process, pages that it shares with others included."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _proportional_bytes(pid: int) -> int:
    """Memory of a process, with its share of the shared pages. It keeps the process waiting: not to be asked often."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def measure_app(dataset: Path, folder: Path, repeats: int, environment: dict[str, str]) -> list[Cost]:
    """Run every derivative `repeats` times; the last output stays in `<folder>/out`."""
    costs = []
    for repeat in range(repeats):
        out = folder / f"out-{repeat}"
        words = [*APP, str(dataset), str(out), "participant", "--skip-bids-validation", "--no-report"]
        costs.append(run(words, environment))
        print(f"run {repeat + 1}: {costs[-1].seconds:.1f} s, {costs[-1].peak_bytes / 2**30:.2f} GB", flush=True)
    return costs


def measure_peer(scan: Path, mask: Path, data: Path, folder: Path, environment: dict[str, str]) -> tuple[str, float]:
    """Register the stripped scan with ANTs in its own environment; returns its name and wall seconds."""
    report = folder / "peer.json"
    command = [str(ROOT / ".venv-peers" / "bin" / "python"), "benchmarks/peers.py", "--data", str(data)]
    run([*command, "--out", str(report), "--scan", str(scan), str(mask)], environment)
    peer = json.loads(report.read_text())
    return f"{peer['name']} {peer['version']}", float(peer["heads"][scan.name]["seconds"])


def document(
    facts: dict[str, str], costs: list[Cost], report: Cost, help_seconds: float, peer: tuple[str, float] | None
) -> str:
    """Return the markdown of the facts of the run and of the measured figures."""
    seconds = statistics.median(cost.seconds for cost in costs)
    rows = [
        ("all derivatives, cold start, median wall time", f"{seconds:.1f} s"),
        ("each run", ", ".join(f"{cost.seconds:.1f}" for cost in costs) + " s"),
        ("CPU time, median", f"{statistics.median(cost.cpu_seconds for cost in costs):.1f} s"),
        ("peak memory, all processes, largest", f"{max(cost.peak_bytes for cost in costs) / 2**30:.2f} GB"),
        ("the participant's report apart, by `--reports-only`, cold start", f"{report.seconds:.1f} s"),
        ("`--help`, median of 5", f"{help_seconds:.2f} s"),
    ]
    if peer:
        rows.append(
            (f"{peer[0]} affine of the same head, stripped: wall time of the registration alone", f"{peer[1]:.1f} s")
        )
        rows.append(("that peer's affine : all our derivatives", f"{peer[1] / seconds:.1f}"))
    table = "\n".join(f"| {what} | {value} |" for what, value in rows)
    return (
        "# Performance\n\n"
        "Measured by `benchmarks/speed.py`; this file is generated, do not edit it. One head of 256^3 voxels of\n"
        "1 mm; a cold start is a new process that reads scan and weights (files may be in the system's cache).\n\n"
        + "\n".join(f"* {name}: {value}" for name, value in facts.items())
        + f"\n\n| what | measured |\n|---|---|\n{table}\n"
    )


def machine() -> dict[str, str]:
    """Describe the machine and the software that ran."""
    cpu = Path("/proc/cpuinfo").read_text()
    model = next(
        (line.split(":", 1)[1].strip() for line in cpu.splitlines() if line.startswith("model name")), "unknown"
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    return {
        "Date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "Code": f"git revision {revision}, torch {version('torch')}, Python {platform.python_version()}",
        "Machine": f"{model}, {len(os.sched_getaffinity(0))} cores used, {memory:.0f} GB, no GPU used",
        "Matrix units (AMX, bf16)": "yes" if "amx_bf16" in cpu else "no",
        "Load average at the start (work of others on the same cores slows the figures)": f"{os.getloadavg()[0]:.1f}",
    }


def main() -> None:
    """Measure, print and, if asked, write the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--head", type=Path, required=True, help="a T1w head, resampled before anything is measured")
    parser.add_argument("--repeats", type=int, default=3, help="cold starts to measure (default: %(default)s)")
    parser.add_argument("--cores", type=int, default=2, help="cores that may be used (default: %(default)s)")
    parser.add_argument("--peer-data", type=Path, help="folder with atlas/: also time ANTs' affine of the same head")
    parser.add_argument("--markdown", type=Path, help="file to write, e.g. docs/performance.md")
    options = parser.parse_args()
    # Children inherit the affinity, so nothing can borrow the rest of a larger machine.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("OMP_NUM_THREADS", None)  # the app chooses its threads itself, as it does for its users
    environment["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(options.cores)
    command = shlex.join(["python", "benchmarks/speed.py", *sys.argv[1:]])
    facts = {"Command": f"`{command}`", "Head": f"{options.head.name}, resampled", **machine()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        scan = make_dataset(options.head, folder / "bids")
        help_seconds = statistics.median(run([*APP, "--help"], environment).seconds for _ in range(5))
        costs = measure_app(folder / "bids", folder, options.repeats, environment)
        words = [*APP, str(folder / "bids"), str(folder / "out-0"), "participant", "--reports-only"]
        report = run(words, environment)
        mask = folder / "out-0" / "sub-01" / "anat" / "sub-01_desc-brain_mask.nii.gz"
        peer = measure_peer(scan, mask, options.peer_data, folder, environment) if options.peer_data else None
        text = document(facts, costs, report, help_seconds, peer)
    print(text)
    if options.markdown:
        options.markdown.write_text(text)


if __name__ == "__main__":
    main()
