"""The settings of one run: the options, judged.

Nothing here reads the dataset; whether folders and files hold what they should is found out by `plan` and `run`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from unibrain_bids.app import rules
from unibrain_bids.app.rules import Judge
from unibrain_bids.bids.templates import Space
from unibrain_bids.group.options import GroupOptions
from unibrain_bids.workflows.processing import DEFAULT_MODEL, MODELS, Processing

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """What `unibrain-bids` was asked to do.

    Attributes
    ----------
    processing
        What is done with each scan; also holds the dataset's folders.
    participants, sessions
        Labels without `sub-`/`ses-`; empty for all.
    filter_file, database_dir
        File with further filters, folder of a pybids index; or None.
    work_dir
        Folder for intermediate files, or None for a temporary one.
    nprocs
        CPUs for all scans together.
    omp_nthreads
        CPUs for one scan, or None to share out `nprocs` among the scans.
    mem_gb
        Memory for all workers together in GB, or None for what is free.
    plugin_file
        YAML with a Nipype plugin, or None.
    boilerplate_only, clean_workdir, dry_run, force, low_mem, no_report, reports_only, resource_monitor,
    skip_validation, stop_on_first_crash, verbosity, write_graph
        As the options of these names say.
    group
        What the group level does; None at participant level.
    config
        All options that were given, as `--config-file` takes them.
    """

    processing: Processing
    participants: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    filter_file: Path | None = None
    database_dir: Path | None = None
    work_dir: Path | None = None
    nprocs: int = 1
    omp_nthreads: int | None = None
    mem_gb: float | None = None
    plugin_file: Path | None = None
    boilerplate_only: bool = False
    clean_workdir: bool = False
    dry_run: bool = False
    force: bool = False
    low_mem: bool = False
    no_report: bool = False
    reports_only: bool = False
    resource_monitor: bool = False
    skip_validation: bool = False
    stop_on_first_crash: bool = False
    verbosity: int = 0
    write_graph: bool = False
    group: GroupOptions | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


def make_settings(options: argparse.Namespace, problems: Sequence[str] = ()) -> Settings:
    """Judge the options of `options.parse_options`, which also gives the first `problems`.

    Raises
    ------
    UsageError
        Some are missing or wrong; the message names all of them.
    """
    judge = Judge(problems)
    _check_level(options.analysis_level, judge)
    bids_dir, output_dir = _folders(options, judge)
    work_dir = judge("--work-dir", rules.absolute, options.work_dir)
    if options.clean_workdir and options.work_dir is None:
        judge.problems.append("--clean-workdir: there is no --work-dir to clean.")
    if work_dir and work_dir.resolve().is_relative_to(bids_dir.resolve()):
        judge.problems.append(f"--work-dir {work_dir}: lies inside the raw dataset; put it outside.")
    processing = _processing(options, bids_dir, output_dir, judge)
    settings = Settings(
        processing=processing,
        participants=judge("--participant-label", rules.labels("sub-"), options.participants) or (),
        sessions=judge("--session-label", rules.labels("ses-"), options.sessions) or (),
        filter_file=judge("--bids-filter-file", rules.file, options.bids_filter_file),
        database_dir=judge("--bids-database-dir", rules.absolute, options.bids_database_dir),
        work_dir=work_dir,
        nprocs=judge("--nprocs", rules.count, options.nprocs) or rules.available_cpus(),
        omp_nthreads=judge("--omp-nthreads", rules.count, options.omp_nthreads),
        mem_gb=judge("--mem", rules.gigabytes, options.mem),
        plugin_file=judge("--use-plugin", rules.file, options.use_plugin),
        boilerplate_only=options.boilerplate_only,
        clean_workdir=options.clean_workdir,
        dry_run=options.dry_run,
        force=options.force,
        low_mem=options.low_mem,
        no_report=options.no_report,
        reports_only=options.reports_only,
        resource_monitor=options.resource_monitor,
        skip_validation=options.skip_bids_validation,
        stop_on_first_crash=options.stop_on_first_crash,
        verbosity=options.verbose,
        write_graph=options.write_graph,
        group=_group_options(options, processing, judge),
        config=options.config,
    )
    if settings.no_report and settings.reports_only:
        judge.problems.append("--no-report and --reports-only contradict each other.")
    judge.finish()
    return settings


def _processing(options: argparse.Namespace, bids_dir: Path, output_dir: Path, judge: Judge) -> Processing:
    """Return what is done with each scan."""
    model = judge("--model", rules.model, options.model) or DEFAULT_MODEL
    atlases, atlas_sources = judge("--atlas", rules.atlases, options.atlases) or (rules.ATLASES, ())
    processing = Processing(
        bids_dir=bids_dir,
        output_dir=output_dir,
        tasks=judge("--tasks", rules.tasks_of(model), options.tasks) or MODELS[model],
        spaces=_or_default(judge("--output-spaces", rules.spaces, options.output_spaces), (Space(),)),
        atlases=atlases,
        atlas_sources=atlas_sources,
        smoothness=_or_default(judge("--smoothness", rules.smoothness, options.smoothness), 0.1),
        device=judge("--device", rules.device, options.device) or "auto",
        random_seed=judge("--random-seed", rules.seed, options.random_seed) or 0,
        weights=judge("--weights", rules.file, options.weights),
        model=model,
        nonlinear=options.nonlinear,
        heads=judge("--classifier", rules.heads, options.classifiers) or (),
    )
    if options.atlases and not {"parcellate", "network"} & set(MODELS[model]):
        judge.problems.append(f"--atlas: the model {model} gives no parcellation.")
    if processing.nonlinear and (model != DEFAULT_MODEL or "register" not in processing.tasks):
        judge.problems.append(f"--nonlinear: needs the task register and the model {DEFAULT_MODEL}.")
    if processing.heads and not {"parcellate", "network"} <= set(processing.tasks):
        judge.problems.append("--classifier: needs the tasks parcellate and network.")
    return processing


def _check_level(level: str | None, judge: Judge) -> None:
    if level not in (None, "participant", "group"):
        judge.problems.append(f"{level}: the third argument must be 'participant' or 'group'.")


def _group_options(options: argparse.Namespace, processing: Processing, judge: Judge) -> GroupOptions | None:
    """Return the options of the group level, which must not be given at another one."""
    names = ("compare", "classify", "regress", "classes", "covariates", "site_column", "permutations")
    if options.analysis_level != "group":
        given = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) is not None]
        judge.problems += [f"{name}: only at group level." for name in given]
        return None
    if options.classify and options.regress:
        judge.problems.append("--classify and --regress: give one of them at a time.")
    if options.classes and options.regress:
        judge.problems.append("--classes: a number has no classes.")
    return GroupOptions(
        compare=options.compare,
        classify=options.classify,
        regress=options.regress,
        classes=judge("--classes", rules.classes, options.classes),
        covariates=judge("--covariates", rules.covariates, options.covariates),
        site=options.site_column,
        heads=processing.heads,
        permutations=judge("--permutations", rules.count, options.permutations) or GroupOptions.permutations,
        random_seed=processing.random_seed,
    )


def _folders(options: argparse.Namespace, judge: Judge) -> tuple[Path, Path]:
    missing = [name for name in ("bids_dir", "output_dir", "analysis_level") if getattr(options, name) is None]
    if missing:
        form = "unibrain-bids BIDS_DIR OUTPUT_DIR {participant,group}"
        judge.problems.append(f"missing {', '.join(missing)}; the form is {form}.")
    return rules.absolute(options.bids_dir or "."), rules.absolute(options.output_dir or "..")


def _or_default(value: T | None, default: T) -> T:
    return default if value is None else value
