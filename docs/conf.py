"""How Sphinx builds this folder: `make docs`."""

import sys
from pathlib import Path

from unibrain_bids import __version__

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "unibrain_bids"
author = "The unibrain_bids contributors"
copyright = "The unibrain_bids contributors, Apache-2.0"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "from_code"]
exclude_patterns = ["_ext"]
smartquotes = False
highlight_language = "text"

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"unibrain_bids {__version__}"
html_show_sphinx = False
html_copy_source = False
