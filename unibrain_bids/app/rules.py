"""What the words after an option must be: each rule returns their meaning, or raises ValueError with what is wrong."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from unibrain_bids.bids.atlases import AtlasSource, find_atlas
from unibrain_bids.bids.templates import NATIVE_SPACES, Space, find_space
from unibrain_bids.classification.card import HeadFile, find_head
from unibrain_bids.errors import ResourceError, UsageError
from unibrain_bids.workflows.processing import DEFAULT_ATLAS, MODELS, TASKS

T = TypeVar("T")

ATLASES = (DEFAULT_ATLAS,)
MAX_GB = 1000  # a larger number was meant as MB
_MEMORY = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>[KMGT]?)(I?B)?", re.IGNORECASE)
_GB = {"K": 1e-6, "M": 1e-3, "": 1.0, "G": 1.0, "T": 1e3}


class Judge:
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


def absolute(text: str) -> Path:
    return Path(os.path.abspath(os.path.expanduser(text)))


def file(text: str) -> Path:
    path = absolute(text)
    if not path.is_file():
        raise ValueError("there is no such file")
    return path


def labels(prefix: str) -> Callable[[list[str]], tuple[str, ...]]:
    def rule(words: list[str]) -> tuple[str, ...]:
        labels = [word.removeprefix(prefix) for word in words]
        if wrong := [label for label in labels if not re.fullmatch(r"[0-9a-zA-Z+]+", label)]:
            raise ValueError(f"'{wrong[0]}' is no BIDS label (letters and digits)")
        return tuple(dict.fromkeys(labels))

    return rule


def count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError("expected a whole number from 1")
    return int(text)


def seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise ValueError("expected a whole number from 0 to 4294967295")
    return int(text)


def smoothness(text: str) -> float:
    if not re.fullmatch(r"[0-9.]+(e-?[0-9]+)?", text) or not 1e-3 <= float(text) <= 10:
        raise ValueError("expected a number from 0.001 to 10")
    return float(text)


def device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise ValueError("expected auto, cpu, cuda or cuda:N")
    return text


def _choice(words: list[str], choices: Sequence[str]) -> tuple[str, ...]:
    if wrong := [word for word in words if word not in choices]:
        raise ValueError(f"'{wrong[0]}' is unknown; there are {', '.join(choices)}")
    return tuple(choice for choice in choices if choice in words)


def model(text: str) -> str:
    if text not in MODELS:
        raise ValueError(f"there are {', '.join(MODELS)}")
    return text


def tasks_of(model: str) -> Callable[[list[str]], tuple[str, ...]]:
    def rule(words: list[str]) -> tuple[str, ...]:
        wanted = _choice(words, TASKS)
        if beyond := [task for task in wanted if task not in MODELS[model]]:
            raise ValueError(f"the model {model} gives no {', '.join(beyond)}; it gives {', '.join(MODELS[model])}")
        return wanted

    return rule


def atlases(words: list[str]) -> tuple[tuple[str, ...], tuple[AtlasSource, ...]]:
    """Return the names of all atlases, and where those come from that are not the package's own."""
    try:
        sources = {word: find_atlas(word) for word in words if word not in ATLASES}
    except ResourceError as error:
        raise ValueError(str(error).rstrip(".")) from error
    names = [sources[word].name if word in sources else word for word in dict.fromkeys(words)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two atlases are called {twice[0]}; rename one (atlas-<name> in the file's name)")
    return tuple(names), tuple(sources.values())


def heads(words: list[str]) -> tuple[HeadFile, ...]:
    try:
        heads = [find_head(word) for word in dict.fromkeys(words)]
    except ResourceError as error:
        raise ValueError(str(error).rstrip(".")) from error
    labels = [head.label for head in heads]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(f"two heads are called {twice[0]}; their predictions would have the same name")
    return tuple(heads)


def classes(words: list[str]) -> tuple[str, str]:
    if len(words) != 2 or words[0] == words[1]:
        raise ValueError("expected two different values")
    return words[0], words[1]


def covariates(words: list[str]) -> tuple[str, ...]:
    if "none" in words and len(words) > 1:
        raise ValueError("none cannot stand beside others")
    return () if words == ["none"] else tuple(dict.fromkeys(words))


def spaces(words: list[str]) -> tuple[Space, ...]:
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
