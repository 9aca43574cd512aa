"""The file of `--config-file`: options under their own names, in TOML or YAML."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unibrain_bids.errors import UsageError

_FORM = "Expected options under their names, such as  nprocs: 8  in YAML or  nprocs = 8  in TOML."


def load_config(path: Path) -> dict[str, Any]:
    """Return the options in a file: TOML if its name ends so, YAML (and so JSON) otherwise.

    Raises
    ------
    UsageError
        The file cannot be read, or is no table of options.
    """
    try:
        content = _parse(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"--config-file {path}: cannot be read ({' '.join(str(error).split())}).", _FORM) from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UsageError(f"--config-file {path}: holds no options.", _FORM)
    return content


def as_words(options: Mapping[str, Any], flags: frozenset[str]) -> Iterator[str]:
    """Yield options as words of a command line.

    Parameters
    ----------
    options
        Names, with hyphens or underscores, to values: a number, a text, a list of these, or true and false for `flags`;
        null leaves an option out.
    flags
        The options without a value, as in `--force`; a number repeats them.
    """
    for key, value in options.items():
        option = f"--{key.replace('_', '-')}"
        if value is None:
            continue
        if option in flags and isinstance(value, int):
            yield from [option] * int(value)
        elif isinstance(value, list):
            yield from (option, *map(str, value))
        else:
            yield f"{option}={value}"


def _parse(path: Path) -> Any:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".toml":
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
        return tomllib.loads(text)
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
