"""Names and texts of the BIDS face that are data rather than code (`resources/bids/*.json`)."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["texts"]


@cache
def texts(name: str) -> dict[str, Any]:
    """Return the content of `resources/bids/<name>.json`; shared by all callers, so not to be changed."""
    return json.loads((files("unibrain_bids") / "resources" / "bids" / f"{name}.json").read_text(encoding="utf-8"))
