"""How the workflow is executed: Nipype's configuration, plugin and resources."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from unibrain_bids.app.settings import Settings
from unibrain_bids.errors import UsageError

if TYPE_CHECKING:
    from nipype import Workflow

Scan = TypeVar("Scan")
T = TypeVar("T")

MAX_THREADS = 8  # more do not make one scan faster
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def share_threads(settings: Settings, n_scans: int) -> Settings:
    """Return the settings with the number of threads of one scan: as asked for, or a fair share of all CPUs.

    With `low_mem`, one scan has all of them.
    """
    if settings.low_mem:
        threads = min(settings.omp_nthreads or settings.nprocs, MAX_THREADS)
        return replace(settings, nprocs=threads, processing=replace(settings.processing, omp_nthreads=threads))
    share = max(1, min(settings.nprocs // max(n_scans, 1), MAX_THREADS))
    threads = min(settings.omp_nthreads or share, settings.nprocs)
    return replace(settings, processing=replace(settings.processing, omp_nthreads=threads))


def configure(workflow: Workflow, settings: Settings, log_dir: Path) -> None:
    """Set Nipype's options for this workflow: crash files, polling, what is kept; draw it, if that was asked for."""
    if settings.write_graph:
        workflow.write_hierarchical_dotfile(dotfilename=str(log_dir / "graph.dot"), colored=True)
    workflow.config["execution"] = {
        "crashdump_dir": str(log_dir),
        "crashfile_format": "txt",
        "create_report": False,
        "hash_method": "timestamp",
        "poll_sleep_duration": 0.05,
        "stop_on_first_crash": settings.stop_on_first_crash,
    }


def choose_plugin(settings: Settings, n_scans: int, **extra: Any) -> Any:
    """Return the Nipype plugin that executes `n_scans` scans.

    That of `--use-plugin`; otherwise Linear where only one task can run at a time, and MultiProc.

    Parameters
    ----------
    settings
        With the number of threads (`share_threads`).
    n_scans
        Scans to process.
    extra
        Further `plugin_args`: `status_callback`, and `log_file` and `verbosity` for the workers.

    Raises
    ------
    UsageError
        The plugin file is wrong.
    """
    from nipype.pipeline import plugins

    from unibrain_bids.workflows.multiproc import SafeMultiProcPlugin
    from unibrain_bids.workflows.slurm import SafeSlurmPlugin

    name, asked = _read_plugin_file(settings.plugin_file) if settings.plugin_file else ("", {})
    own = {"n_procs": settings.nprocs, "memory_gb": settings.mem_gb or free_memory_gb(), "n_gpu_procs": 1}
    one_at_a_time = n_scans == 1 or settings.nprocs // settings.processing.omp_nthreads == 1
    name = name or ("Linear" if one_at_a_time else "MultiProc")
    if name == "MultiProc":
        return SafeMultiProcPlugin(plugin_args={**own, **asked, **extra})
    if name == "SLURM":
        return SafeSlurmPlugin(plugin_args={**asked, "status_callback": extra["status_callback"]})
    plugin = getattr(plugins, f"{name}Plugin", None)
    if plugin is None or "Graph" in name:
        usable = sorted(n.removesuffix("Plugin") for n in dir(plugins) if n.endswith("Plugin") and "Graph" not in n)
        remedy = f"There are: {', '.join(usable)} (those with Graph in their name return before the work is done)."
        raise UsageError(f"{settings.plugin_file}: the plugin {name} cannot be used.", remedy)
    return plugin(plugin_args={**asked, "status_callback": extra["status_callback"]})


def batches(scans: Mapping[Scan, T], plugin: Any) -> Iterator[dict[Scan, T]]:
    """Yield the scans in the portions that make one workflow each.

    Nipype's Linear plugin goes through a workflow step by step, not scan by scan: the first scan would be done when all
    are, and the intermediate files of all would pile up. So it gets one scan at a time.
    """
    if type(plugin).__name__ == "LinearPlugin":
        yield from ({scan: value} for scan, value in scans.items())
    else:
        yield dict(scans)


def free_memory_gb() -> float:
    """Return nine tenths of the memory in GB that this process may use: what is free, within a container's limit."""
    limits = [os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for line in Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else ():
        if line.startswith("MemAvailable:"):
            limits = [int(line.split()[1]) * 1024]
    limits += [int(text) for path in _CGROUP_LIMITS if path.exists() and (text := path.read_text().strip()) != "max"]
    return 0.9 * min(limits) / 1e9


def _read_plugin_file(path: Path) -> tuple[str, dict[str, Any]]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: cannot be read as YAML ({error}).", "See the README for an example.") from error
    if not isinstance(content, dict) or not isinstance(content.get("plugin"), str):
        raise UsageError(f"{path}: has no 'plugin'.", "Expected: plugin: SLURM, plugin_args: {sbatch_args: ...}.")
    return content["plugin"], content.get("plugin_args") or {}
