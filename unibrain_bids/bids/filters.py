"""The filter file: which images to take, in pybids' terms and fMRIPrep's form.

    {"t1w": {"acquisition": "mprage", "reconstruction": null, "session": ["1", "2"], "run": "*"}}

`null` stands for "the entity must be absent", `"*"` for "it must be there, with any value". Keys in lower case are
entities of the file name; keys that begin with a capital are fields of the sidecar, such as "EchoTime".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unibrain_bids.errors import UsageError

__all__ = ["load_filters", "needs_metadata", "pybids_query"]

# Queries of fMRIPrep for other images: a file that serves both programs is welcome.
_OTHER_QUERIES = frozenset({"bold", "dwi", "flair", "fmap", "roi", "sbref", "t2w"})


def load_filters(path: Path) -> dict[str, Any]:
    """Return the query for T1w images in the filter file `path`.

    Raises
    ------
    UsageError
        The file cannot be read, is no JSON object, or has keys that mean nothing.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: the filter file cannot be read ({error}).", "Give a JSON file.") from error
    query = content.get("t1w", {}) if isinstance(content, dict) else None
    if not isinstance(query, dict):
        raise UsageError(f"{path}: the filter file has the wrong form.", 'Expected {"t1w": {"acquisition": "mprage"}}.')
    if unknown := sorted(set(content) - _OTHER_QUERIES - {"t1w"}):
        raise UsageError(f"{path}: unknown key(s) {', '.join(unknown)}.", 'The key for our images is "t1w".')
    entities = _known_entities()
    if unknown := sorted(key for key in query if not _is_metadata(key) and key not in entities):
        raise UsageError(f"{path}: unknown entity {', '.join(unknown)}.", f"pybids knows: {', '.join(entities)}.")
    return query


def needs_metadata(filters: Mapping[str, Any]) -> bool:
    """Tell whether a filter asks for the content of sidecars, which take long to read."""
    return any(_is_metadata(key) for key in filters)


def pybids_query(filters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments for `BIDSLayout.get`: T1w images in `anat/`, as changed by `filters`."""
    default = {"datatype": "anat", "suffix": "T1w", "extension": [".nii.gz", ".nii"]}
    chosen = {key: _query_value(value) for key, value in filters.items()}
    # A sidecar field that no image has is unknown to pybids; that is an empty answer, not an error.
    return default | chosen | {"invalid_filters": "allow" if needs_metadata(filters) else "error"}


def _query_value(value: Any) -> Any:
    from bids.layout import Query

    if isinstance(value, list):
        return [_query_value(item) for item in value]
    if value is None:
        return Query.NONE
    return Query.ANY if value == "*" else value


def _is_metadata(key: str) -> bool:
    return key[:1].isupper()


def _known_entities() -> list[str]:
    from bids.layout.models import Config

    return sorted(Config.load("bids").entities)
