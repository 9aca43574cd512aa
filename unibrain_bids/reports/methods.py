"""The methods text of the run (`logs/CITATION.md`) as blocks of a page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from markupsafe import Markup, escape

from unibrain_bids.reports.page import Block, Html, Text, link

__all__ = ["methods_blocks"]

_ADDRESS = re.compile(r"doi:(10\.\d+/[^\s,;]+[^\s,;.])|arXiv:(\d{4}\.\d{4,5})|(https?://[^\s,;]+[^\s,;.])")


def methods_blocks(citation: Path) -> list[Block]:
    """Return the text as paragraphs, and its references as a list with links; says so where there is no text."""
    try:
        text = citation.read_text(encoding="utf-8")
    except OSError:
        return [Text("No methods text was written by the run.")]
    return list(_blocks(text))


def _blocks(text: str) -> Iterator[Block]:
    references: list[Markup] = []
    for paragraph in re.split(r"\n\s*\n", text):
        lines = [line.strip() for line in paragraph.splitlines() if line.strip() and not line.startswith("#")]
        numbered = [match[1] for line in lines if (match := re.match(r"\d+\.\s+(.*)", line))]
        references += [Markup("<li>{}</li>").format(_linked(reference)) for reference in numbered]
        if lines and not numbered:
            yield Text(_emphasised(" ".join(lines)))
    if references:
        yield Html(Markup("<h4>References</h4>\n<ol class='references'>{}</ol>").format(Markup("").join(references)))


def _linked(text: str) -> Markup:
    """Return a reference in which DOI, arXiv number and web address are links."""
    parts, end = [], 0
    for match in _ADDRESS.finditer(text):
        doi, arxiv, web = match.groups()
        target = f"https://doi.org/{doi}" if doi else f"https://arxiv.org/abs/{arxiv}" if arxiv else web
        parts += [escape(text[end : match.start()]), link(target, match[0])]
        end = match.end()
    return Markup("").join([*parts, escape(text[end:])])


def _emphasised(text: str) -> Markup:
    """Return text with Markdown's *emphasis* as HTML."""
    return Markup(re.sub(r"\*([^*]+)\*", r"<em>\1</em>", str(escape(text))))
