"""The settings of one run: the options, judged.

Nothing here reads the dataset; whether folders and files hold what they should is found out by `plan` and `run`.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from unibrain_bids.bids.atlases import AtlasSource, find_atlas
from unibrain_bids.bids.templates import NATIVE_SPACES, Space, find_space
from unibrain_bids.classification.card import HeadFile, find_head
from unibrain_bids.errors import ResourceError, UsageError
from unibrain_bids.group.options import GroupOptions
from unibrain_bids.workflows.processing import DEFAULT_ATLAS, DEFAULT_MODEL, MODELS, TASKS, Processing

T = TypeVar("T")

ATLASES = (DEFAULT_ATLAS,)
MAX_GB = 1000  # a larger number was meant as MB
_MEMORY = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>[KMGT]?)(I?B)?", re.IGNORECASE)
_GB = {"K": 1e-6, "M": 1e-3, "": 1.0, "G": 1.0, "T": 1e3}


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
    judge = _Judge(problems)
    _check_level(options.analysis_level, judge)
    bids_dir, output_dir = _folders(options, judge)
    work_dir = judge("--work-dir", _absolute, options.work_dir)
    if options.clean_workdir and options.work_dir is None:
        judge.problems.append("--clean-workdir: there is no --work-dir to clean.")
    if work_dir and work_dir.resolve().is_relative_to(bids_dir.resolve()):
        judge.problems.append(f"--work-dir {work_dir}: lies inside the raw dataset; put it outside.")
    model = judge("--model", _model, options.model) or DEFAULT_MODEL
    atlases, atlas_sources = judge("--atlas", _atlases, options.atlases) or (ATLASES, ())
    processing = Processing(
        bids_dir=bids_dir,
        output_dir=output_dir,
        tasks=judge("--tasks", _tasks_of(model), options.tasks) or MODELS[model],
        spaces=_or_default(judge("--output-spaces", _spaces, options.output_spaces), (Space(),)),
        atlases=atlases,
        atlas_sources=atlas_sources,
        smoothness=_or_default(judge("--smoothness", _smoothness, options.smoothness), 0.1),
        device=judge("--device", _device, options.device) or "auto",
        random_seed=judge("--random-seed", _seed, options.random_seed) or 0,
        weights=judge("--weights", _file, options.weights),
        model=model,
        heads=judge("--classifier", _heads, options.classifiers) or (),
    )
    settings = Settings(
        processing=processing,
        participants=judge("--participant-label", _labels("sub-"), options.participants) or (),
        sessions=judge("--session-label", _labels("ses-"), options.sessions) or (),
        filter_file=judge("--bids-filter-file", _file, options.bids_filter_file),
        database_dir=judge("--bids-database-dir", _absolute, options.bids_database_dir),
        work_dir=work_dir,
        nprocs=judge("--nprocs", _count, options.nprocs) or available_cpus(),
        omp_nthreads=judge("--omp-nthreads", _count, options.omp_nthreads),
        mem_gb=judge("--mem", gigabytes, options.mem),
        plugin_file=judge("--use-plugin", _file, options.use_plugin),
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
    if options.atlases and not {"parcellate", "network"} & set(MODELS[model]):
        judge.problems.append(f"--atlas: the model {model} gives no parcellation.")
    if processing.heads and not {"parcellate", "network"} <= set(processing.tasks):
        judge.problems.append("--classifier: needs the tasks parcellate and network.")
    if settings.no_report and settings.reports_only:
        judge.problems.append("--no-report and --reports-only contradict each other.")
    judge.finish()
    return settings


def available_cpus() -> int:
    """Return the number of CPUs that this process may use (not all that the machine has)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gigabytes(text: str) -> float:
    """Return an amount of memory in GB: "8", "8G", "8GB" and "8000M" are the same."""
    match = _MEMORY.fullmatch(text.strip())
    if not match:
        raise ValueError("expected a number of GB, such as 8, 8G or 8000M")
    amount = float(match["number"]) * _GB[match["unit"].upper()]
    if not match["unit"] and amount >= MAX_GB:
        raise ValueError(f"that would be {amount:g} GB; if MB are meant, write {text.strip()}M")
    if amount <= 0:
        raise ValueError("expected more than 0")
    return amount


class _Judge:
    """Applies one rule to one option, and keeps the problems for the end."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)

    def __call__(self, name: str, rule: Callable[[Any], T], value: Any) -> T | None:
        if value is None:
            return None
        try:
            return rule(value)
        except ValueError as error:
            shown = " ".join(value) if isinstance(value, list) else value
            self.problems.append(f"{name} {shown}: {error}.")
            return None

    def finish(self) -> None:
        if self.problems:
            several = len(self.problems) > 1
            listed = "".join(f"\n  {problem}" for problem in self.problems) + "\n"
            message = f"{len(self.problems)} problems with the options:{listed}" if several else self.problems[0]
            raise UsageError(message, "See unibrain-bids --help.")


def _check_level(level: str | None, judge: _Judge) -> None:
    if level not in (None, "participant", "group"):
        judge.problems.append(f"{level}: the third argument must be 'participant' or 'group'.")


def _group_options(options: argparse.Namespace, processing: Processing, judge: _Judge) -> GroupOptions | None:
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
        classes=judge("--classes", _classes, options.classes),
        covariates=judge("--covariates", _covariates, options.covariates),
        site=options.site_column,
        heads=processing.heads,
        permutations=judge("--permutations", _count, options.permutations) or GroupOptions.permutations,
        random_seed=processing.random_seed,
    )


def _folders(options: argparse.Namespace, judge: _Judge) -> tuple[Path, Path]:
    missing = [name for name in ("bids_dir", "output_dir", "analysis_level") if getattr(options, name) is None]
    if missing:
        form = "unibrain-bids BIDS_DIR OUTPUT_DIR {participant,group}"
        judge.problems.append(f"missing {', '.join(missing)}; the form is {form}.")
    return _absolute(options.bids_dir or "."), _absolute(options.output_dir or "..")


def _or_default(value: T | None, default: T) -> T:
    return default if value is None else value


def _absolute(text: str) -> Path:
    return Path(os.path.abspath(os.path.expanduser(text)))


def _file(text: str) -> Path:
    path = _absolute(text)
    if not path.is_file():
        raise ValueError("there is no such file")
    return path


def _labels(prefix: str) -> Callable[[list[str]], tuple[str, ...]]:
    def rule(words: list[str]) -> tuple[str, ...]:
        labels = [word.removeprefix(prefix) for word in words]
        if wrong := [label for label in labels if not re.fullmatch(r"[0-9a-zA-Z+]+", label)]:
            raise ValueError(f"'{wrong[0]}' is no BIDS label (letters and digits)")
        return tuple(dict.fromkeys(labels))

    return rule


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError("expected a whole number from 1")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise ValueError("expected a whole number from 0 to 4294967295")
    return int(text)


def _smoothness(text: str) -> float:
    if not re.fullmatch(r"[0-9.]+(e-?[0-9]+)?", text) or not 1e-3 <= float(text) <= 10:
        raise ValueError("expected a number from 0.001 to 10")
    return float(text)


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise ValueError("expected auto, cpu, cuda or cuda:N")
    return text


def _choice(words: list[str], choices: Sequence[str]) -> tuple[str, ...]:
    if wrong := [word for word in words if word not in choices]:
        raise ValueError(f"'{wrong[0]}' is unknown; there are {', '.join(choices)}")
    return tuple(choice for choice in choices if choice in words)


def _model(text: str) -> str:
    if text not in MODELS:
        raise ValueError(f"there are {', '.join(MODELS)}")
    return text


def _tasks_of(model: str) -> Callable[[list[str]], tuple[str, ...]]:
    def rule(words: list[str]) -> tuple[str, ...]:
        wanted = _choice(words, TASKS)
        if beyond := [task for task in wanted if task not in MODELS[model]]:
            raise ValueError(f"the model {model} gives no {', '.join(beyond)}; it gives {', '.join(MODELS[model])}")
        return wanted

    return rule


def _atlases(words: list[str]) -> tuple[tuple[str, ...], tuple[AtlasSource, ...]]:
    """Return the names of all atlases, and where those come from that are not the package's own."""
    try:
        sources = {word: find_atlas(word) for word in words if word not in ATLASES}
    except ResourceError as error:
        raise ValueError(str(error).rstrip(".")) from error
    names = [sources[word].name if word in sources else word for word in dict.fromkeys(words)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two atlases are called {twice[0]}; rename one (atlas-<name> in the file's name)")
    return tuple(names), tuple(sources.values())


def _heads(words: list[str]) -> tuple[HeadFile, ...]:
    try:
        heads = [find_head(word) for word in dict.fromkeys(words)]
    except ResourceError as error:
        raise ValueError(str(error).rstrip(".")) from error
    labels = [head.label for head in heads]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(f"two heads are called {twice[0]}; their predictions would have the same name")
    return tuple(heads)


def _classes(words: list[str]) -> tuple[str, str]:
    if len(words) != 2 or words[0] == words[1]:
        raise ValueError("expected two different values")
    return words[0], words[1]


def _covariates(words: list[str]) -> tuple[str, ...]:
    if "none" in words and len(words) > 1:
        raise ValueError("none cannot stand beside others")
    return () if words == ["none"] else tuple(dict.fromkeys(words))


def _spaces(words: list[str]) -> tuple[Space, ...]:
    """Return the templates among the words; the scan's own grid is always written and may be named or not."""
    try:
        spaces = [find_space(word) for word in dict.fromkeys(words) if word not in NATIVE_SPACES]
    except ResourceError as error:
        raise ValueError(str(error).rstrip(".")) from error
    distinct = tuple(dict.fromkeys(spaces))
    labels = [space.label for space in distinct]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(f"{twice[0]} is named twice; the affines to it would have the same name")
    return distinct
