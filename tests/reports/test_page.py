"""The page: what goes in is escaped, what comes out is well-formed, and nothing is loaded from anywhere."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from markupsafe import Markup

from unibrain_bids.reports import page
from unibrain_bids.reports.page import (
    Details,
    Facts,
    Figure,
    Flag,
    Flags,
    Flicker,
    Html,
    Legend,
    Mosaic,
    Row,
    Section,
    Table,
    Text,
)

HOSTILE = "<script>alert(1)</script>\"'><b>"
VOID = {"meta", "link", "img", "input", "br", "hr", "option"}


class Outline(HTMLParser):
    """Checks that elements nest, and gathers ids, targets, headings and pictures."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def html() -> str:
    figure = Figure("data:image/webp;base64,AA==", HOSTILE, HOSTILE, paper=True)
    blocks = [
        Text(HOSTILE), Facts([(HOSTILE, HOSTILE)]), Flags([Flag(HOSTILE), Flag(HOSTILE, "error")]),
        Table([HOSTILE, "n"], [[HOSTILE, 1.5], ["b", np.nan]], HOSTILE, sortable=True), figure, Row([figure]),
        Mosaic([figure.source] * 2, HOSTILE, HOSTILE), Legend([(HOSTILE, HOSTILE)]), Flicker(figure, figure, HOSTILE),
        Details(HOSTILE, [Text(HOSTILE)]), Html(Markup("<hr id='own'>")),
    ]  # fmt: skip
    sections = [Section(HOSTILE, blocks), Section("Two", [Section("Sub", [Text("x")])])]
    return page.render_page(HOSTILE, sections, subtitle=HOSTILE, footer=HOSTILE, data={"d": {HOSTILE: HOSTILE}})


def test_nothing_hostile_survives(html: str) -> None:
    outline = Outline(html)
    assert outline.open == []
    assert not outline.all("b")
    assert all("alert" not in value for tag, attrs in outline.elements for key, value in attrs.items()
               if key.startswith("on") and value)  # fmt: skip
    assert len(outline.all("script")) == 2  # the data, and the page's own
    assert "<script>alert" not in html


def test_scripts_may_run_only_if_they_are_the_pages_own(html: str) -> None:
    policy = next(m["content"] for m in Outline(html).all("meta") if m.get("http-equiv"))
    assert policy is not None and "default-src 'none'" in policy
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy, "that script, and no unsafe-inline beside it"


def test_data_arrives_as_it_was(html: str) -> None:
    (text,) = re.findall(r'<script type="application/json" id="d">(.*?)</script>', html, re.S)
    assert json.loads(text) == {HOSTILE: HOSTILE}


def test_contents_lead_to_sections_and_headings_do_not_skip_levels(html: str) -> None:
    outline = Outline(html)
    ids = [attributes["id"] for _, attributes in outline.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    targets = {link["href"] for link in outline.all("a") if str(link["href"]).startswith("#")}
    assert targets <= {f"#{name}" for name in ids}
    levels = [int(tag[1]) for tag, _ in outline.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert all(image.get("alt") is not None for image in outline.all("img"))


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        (1234.5, "1,234"),
        (0.123456, "0.1235"),
        (7, "7"),
        (None, "n/a"),
        (float("inf"), "n/a"),
        ("a", "a"),
        (True, "True"),
    ],
)
def test_cells(cell: object, shown: str) -> None:
    html = page.render_page("t", [Section("s", [Table(["a", "b"], [["x", cell]], "c")])])
    assert re.search(rf"<td[^>]*>{re.escape(shown)}</td>", html)


def test_only_web_addresses_become_links() -> None:
    assert page.link("https://doi.org/10.1", "a<b") == '<a href="https://doi.org/10.1">a&lt;b</a>'
    assert page.link("sub-01.html", "x") == '<a href="sub-01.html">x</a>'
    assert page.link("javascript:alert(1)", "x") == page.link("JaVaScRipt:alert(1)", "x") == "x"
