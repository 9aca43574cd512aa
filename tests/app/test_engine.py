"""Plugins and resources."""

import os
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

os.environ["NO_ET"] = "1"

from nipype.pipeline.plugins import LinearPlugin
from nipype.pipeline.plugins.slurm import SLURMPlugin

from unibrain_bids.app.engine import MAX_THREADS, batches, choose_plugin, free_memory_gb, share_threads
from unibrain_bids.app.settings import Settings
from unibrain_bids.errors import UsageError
from unibrain_bids.workflows.multiproc import SafeMultiProcPlugin
from unibrain_bids.workflows.processing import Processing

SETTINGS = Settings(Processing(Path("/raw"), Path("/out")), nprocs=4)


def threads(n_scans, **changes):
    return share_threads(replace(SETTINGS, **changes), n_scans).processing.omp_nthreads


def test_threads_are_shared_out():
    assert threads(1) == 4
    assert threads(2) == 2
    assert threads(100) == 1
    assert threads(1, nprocs=64) == MAX_THREADS
    assert threads(1, omp_nthreads=3) == 3
    assert threads(1, omp_nthreads=9) == 4


def test_low_mem_is_one_scan_at_a_time():
    assert threads(100, low_mem=True) == 4
    assert threads(100, low_mem=True, omp_nthreads=2) == 2
    assert isinstance(plugin(100, low_mem=True, omp_nthreads=2), LinearPlugin)


def plugin(n_scans=2, **changes):
    settings = share_threads(replace(SETTINGS, **changes), n_scans)
    return choose_plugin(settings, n_scans, status_callback=print, verbosity=0)


def test_one_at_a_time_needs_no_workers():
    assert isinstance(plugin(1), LinearPlugin)
    assert isinstance(plugin(8, nprocs=1), LinearPlugin)
    assert isinstance(plugin(8, omp_nthreads=4), LinearPlugin)


def test_several_at_a_time():
    chosen = plugin(8, mem_gb=12.5)
    assert isinstance(chosen, SafeMultiProcPlugin)
    assert (chosen.processors, chosen.memory_gb) == (4, 12.5)


def test_linear_goes_scan_by_scan():
    scans = {"a": 1, "b": 2}
    assert list(batches(scans, plugin(1))) == [{"a": 1}, {"b": 2}]
    assert list(batches(scans, plugin(8))) == [scans]


def test_plugin_file(tmp_path):
    path = tmp_path / "plugin.yml"
    path.write_text("plugin: SLURM\nplugin_args: {sbatch_args: '--time 10', max_jobs: 3}\n")
    chosen = plugin(8, plugin_file=path)
    assert isinstance(chosen, SLURMPlugin)
    assert chosen.max_jobs == 3
    path.write_text("plugin: MultiProc\nplugin_args: {n_procs: 2, memory_gb: 7}\n")
    chosen = plugin(1, plugin_file=path)
    assert isinstance(chosen, SafeMultiProcPlugin)
    assert (chosen.processors, chosen.memory_gb) == (2, 7)


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", "plugin: {", "plugin: Nothing", "plugin: SLURMGraph", "plugin_args: {}"]
)
def test_plugin_file_that_is_wrong(tmp_path, text):
    path = tmp_path / "plugin.yml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"plugin\.yml"):
        plugin(8, plugin_file=path)


def test_free_memory():
    assert 0.01 < free_memory_gb() <= 0.9 * psutil.virtual_memory().total / 1e9
