"""How Sphinx builds this folder: `make docs`."""

import sys
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from unibrain_bids import __version__

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "unibrain_bids"
author = "The unibrain_bids contributors"
copyright = "The unibrain_bids contributors, Apache-2.0"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "from_code"]
exclude_patterns = ["_ext"]
smartquotes_action = "D"  # dashes alone; quotes stay as they are written
highlight_language = "text"

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # the docstrings tell shapes and types

html_theme = "furo"
html_title = f"unibrain_bids {__version__}"
html_show_sphinx = False
html_copy_source = False


def without_fields(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str, None] | None:
    """Return no signature for dataclasses: their docstrings tell of each field what its type does not."""
    return ("", None) if is_dataclass(thing) else None


def setup(app: Sphinx) -> None:
    """Connect what is particular to this site."""
    app.connect("autodoc-process-signature", without_fields)
