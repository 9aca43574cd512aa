"""The skeleton of every report: one HTML file that needs nothing but itself.

A page is made of sections, a section of blocks; `render_page` turns them into HTML. All text is escaped, unless it
comes as `markupsafe.Markup`. Nothing is loaded from anywhere: pictures are data URIs, and a content security policy
forbids every request and every script but those that the page was made with.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from markupsafe import Markup

from unibrain_bids import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = [
    "Block", "Details", "Facts", "Figure", "Flag", "Flags", "Flicker", "Html", "Legend", "Mosaic", "Row", "Section",
    "Table", "Text", "data_uri", "link", "render_page", "resource_text",
]  # fmt: skip

_RESEARCH_ONLY = "For research use only. Nothing here is a diagnosis."
_LEVELS = {"ok": "Good:", "info": "Note:", "warning": "Look at this:", "error": "Failed:"}


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar = "text"
    text: str


@dataclass(frozen=True)
class Facts:
    """Names and values, such as ("Session", "1"), side by side."""

    kind: ClassVar = "facts"
    rows: Sequence[tuple[str, Any]]


@dataclass(frozen=True)
class Flag:
    """One remark: `text`, and how serious it is."""

    text: str
    level: Literal["ok", "info", "warning", "error"] = "warning"

    @property
    def label(self) -> str:
        """The level in a word: colour alone must not carry it."""
        return _LEVELS[self.level]


@dataclass(frozen=True)
class Flags:
    """A list of remarks."""

    kind: ClassVar = "flags"
    flags: Sequence[Flag]


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row is its heading, numbers are set to the right.

    Attributes
    ----------
    columns
        Headings.
    rows
        One sequence of cells (text, Markup, numbers; None and NaN are shown as n/a) per row.
    caption
        What the table shows; also its name for screen readers.
    sortable
        Whether a click on a heading sorts the rows; long tables get a filter then, too.
    """

    kind: ClassVar = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str
    sortable: bool = False


@dataclass(frozen=True)
class Figure:
    """A picture.

    Attributes
    ----------
    source
        Data URI (see `data_uri`).
    alt
        What it shows, for those who cannot see it.
    caption
        Text below it.
    paper
        Whether it was drawn for a white ground, which it then also gets on a dark page.
    """

    kind: ClassVar = "figure"
    source: str
    alt: str
    caption: str = ""
    paper: bool = False


@dataclass(frozen=True)
class Mosaic:
    """Pictures that make one: strips of slices, which wrap on a small screen; `alt` and `caption` are of the whole."""

    kind: ClassVar = "mosaic"
    sources: Sequence[str]
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Legend:
    """What the colours of a picture mean: pairs of a colour as "#RRGGBB" and its name."""

    kind: ClassVar = "legend"
    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Row:
    """Pictures side by side, as many as there is room for."""

    kind: ClassVar = "row"
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Flicker:
    """Two pictures of the same size that take turns; their captions say which one is seen."""

    kind: ClassVar = "flicker"
    first: Figure | Mosaic
    second: Figure | Mosaic
    caption: str


@dataclass(frozen=True)
class Details:
    """Blocks that are shown on demand (and in print)."""

    kind: ClassVar = "details"
    summary: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Html:
    """HTML that the caller vouches for."""

    kind: ClassVar = "html"
    markup: Markup


@dataclass(frozen=True)
class Section:
    """A heading with blocks below it; sections may stand in sections.

    Attributes
    ----------
    title
        The heading.
    blocks
        What follows.
    anchor
        `id` in the page, letters, digits, "-" and "_"; made from the title if empty. Must be unique in the page.
    """

    kind: ClassVar = "section"
    title: str
    blocks: Sequence[Block]
    anchor: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "anchor", re.sub(r"[^\w-]+", "-", self.anchor or self.title.lower()).strip("-"))

    @property
    def subsections(self) -> list[Section]:
        """The sections among the blocks."""
        return [block for block in self.blocks if isinstance(block, Section)]


Block = Text | Facts | Flags | Table | Figure | Mosaic | Legend | Row | Flicker | Details | Html | Section


def render_page(
    title: str,
    sections: Sequence[Section],
    *,
    subtitle: str = "",
    footer: str = _RESEARCH_ONLY,
    scripts: Sequence[str] = (),
    styles: Sequence[str] = (),
    data: Mapping[str, Any] | None = None,
    unpacks_scripts: bool = False,
) -> str:
    """Return a whole page as HTML.

    Parameters
    ----------
    title, subtitle
        Heading of the page, and a line below it.
    sections
        The content; they and their subsections make the table of contents.
    footer
        Last line.
    scripts, styles
        JavaScript and CSS of the caller's own, beyond the page's; never text from a dataset.
    data
        Objects for the scripts: each name is the `id` of a JSON element.
    unpacks_scripts
        Whether the scripts may run further ones that they unpack from the page's data.
    """
    every_script = [Markup(script) for script in (resource_text("page.js"), *scripts)]
    template = _environment().get_template("page.html")
    return template.render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        footer=footer,
        generator=f"unibrain-bids {__version__}",
        style=Markup("\n".join([resource_text("page.css"), *styles])),
        scripts=every_script,
        data=data or {},
        policy=_policy(every_script, unpacks_scripts=unpacks_scripts),
    )


def data_uri(content: bytes, media_type: str) -> str:
    """Return `content` as a data URI, such as for "image/png"."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def link(target: str, text: str) -> Markup:
    """Return a link; both parts are escaped, and only web, DOI and relative addresses become links."""
    if re.match(r"[a-z][a-z0-9+.-]*:", target, re.IGNORECASE) and not re.match("https?:", target, re.IGNORECASE):
        return Markup("{}").format(text)
    return Markup('<a href="{}">{}</a>').format(target, text)


def _policy(scripts: Sequence[str], *, unpacks_scripts: bool) -> str:
    """Return the content security policy: no requests, and no scripts but these."""
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii") for script in scripts]
    allowed = " ".join([*(f"'sha256-{digest}'" for digest in digests), *(["blob:"] if unpacks_scripts else [])])
    return (
        f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {allowed}; "
        "connect-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _is_finite(cell: Any) -> bool:
    return isinstance(cell, Real) and not isinstance(cell, bool) and math.isfinite(cell)


def _plain(cell: Any) -> Any:
    """Return a cell as it is shown: numbers with four significant digits, thousands in full."""
    if cell is None or (isinstance(cell, Real) and not math.isfinite(cell)):
        return "n/a"
    if not _is_finite(cell):
        return cell
    return f"{cell:,.0f}" if float(cell).is_integer() or abs(cell) >= 1000 else f"{cell:.4g}"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(loader=FunctionLoader(resource_text), autoescape=True, undefined=StrictUndefined)
    environment.filters["plain"] = _plain
    environment.tests["finite"] = _is_finite
    return environment


@cache
def resource_text(name: str) -> str:
    """Return the content of `resources/reports/<name>`."""
    return (files("unibrain_bids") / "resources" / "reports" / name).read_text(encoding="utf-8")
