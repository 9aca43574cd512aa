"""The pages in a browser: they ask for nothing, complain of nothing, and can be read and used by everyone.

Without a browser these tests are skipped; `.ci/run` installs one first and fails if it cannot.
"""

from __future__ import annotations

import re
import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from unibrain_bids.group.level import run_group
from unibrain_bids.group.options import GroupOptions
from unibrain_bids.reports.participant import write_report

pytestmark = pytest.mark.slow

_FLAGS = ["--no-sandbox", "--disable-background-networking", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
_SIMULATE = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "group.py"))["simulate"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as driver:
        path = shutil.which("chromium") or driver.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("no browser: `make browser` (as root), or `.venv/bin/playwright install chromium`")
        opened = driver.chromium.launch(executable_path=path, args=_FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(dataset: Any) -> Path:
    path = write_report(dataset.out, "01", bids_dir=dataset.raw, templates=dataset.templates)
    return shutil.move(path, path.with_name("browser.html"))


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw, out = _SIMULATE(tmp_path_factory.mktemp("group"), participants=12)
    (out / "sub-0003.html").write_text("<title>the report of sub-0003</title>")
    run_group(raw, out, options=GroupOptions(compare="diagnosis"))
    return out / "group_T1w.html"


@pytest.fixture(scope="module", params=["report", "group"])
def page_file(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


class Visit:
    """An open page, and what the browser said and asked for."""

    def __init__(self, browser: Any, file: Path, **context: Any) -> None:
        self.file = file
        self.page = browser.new_page(**context)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda said: said.type in ("error", "warning") and self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())

    @property
    def focus(self) -> Any:
        return self.page.locator(":focus")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def tab_to(self, selector: str) -> Any:
        """Press Tab until an element that fits has the focus; it must come within 80 stops."""
        for _ in range(80):
            self.press("Tab")
            if self.focus.evaluate("(element, selector) => element.matches(selector)", selector):
                return self.focus
        raise AssertionError(f"Tab does not lead to {selector}")

    def check_silence(self) -> None:
        """Nothing was asked for but the page itself, and nothing was complained of."""
        assert [url for url in self.requests if not url.startswith(("data:", "blob:"))] == [self.file.as_uri()]
        assert self.complaints == []


def test_keys_lead_through_every_page(browser: Any, page_file: Path) -> None:
    visit = Visit(browser, page_file, viewport={"width": 1280, "height": 900})
    assert visit.page.locator("img:not([alt])").count() == 0
    assert visit.page.locator("[role=img]:not([aria-label]):not(:has(title))").count() == 0
    visit.press("Tab")
    assert visit.focus.get_attribute("href") == "#main"
    target = visit.page.locator("nav.contents a").last.get_attribute("href")
    visit.tab_to(f'nav.contents a[href="{target}"]')
    assert visit.focus.evaluate("element => getComputedStyle(element).outlineStyle") == "solid"
    visit.press("Enter")
    box = visit.page.locator(target).bounding_box()
    assert 0 <= box["y"] < 900
    visit.check_silence()


def test_report_by_keyboard(browser: Any, report: Path) -> None:
    visit = Visit(browser, report, viewport={"width": 1280, "height": 900})
    visit.tab_to("[data-open]")
    visit.press("Enter")
    place = visit.page.locator(".viewer output:not(:empty)")
    place.wait_for(timeout=300_000)
    start = re.findall(r"-?\d+", place.inner_text())
    assert visit.focus.evaluate("element => element.tagName") == "CANVAS"
    visit.press(*["ArrowRight"] * 5)
    assert int(re.findall(r"-?\d+", place.inner_text())[0]) > int(start[0])

    visit.tab_to("[data-flicker=swap]")
    flicker = visit.page.locator(".flicker").first
    before = flicker.locator("output").inner_text()
    visit.press("Enter")
    assert (before, flicker.locator("output").inner_text()) == ("As scanned", "After correction")
    assert flicker.locator(".stack > :nth-child(2)").is_visible()
    visit.check_silence()


def test_group_by_keyboard(browser: Any, group: Path) -> None:
    visit = Visit(browser, group, viewport={"width": 1280, "height": 900})
    visit.tab_to("[data-plot=measures] svg")
    told = visit.page.locator("[data-plot=measures] output")
    visit.press("ArrowRight")
    lowest = float(told.inner_text().split()[-1])
    visit.press("ArrowRight")
    assert float(told.inner_text().split()[-1]) >= lowest
    visit.tab_to("[data-plot=networks] canvas")
    visit.press("ArrowRight", "ArrowDown")
    assert re.fullmatch(r"\S+, \S+: [\d.]+", visit.page.locator("[data-plot=networks] output").inner_text())
    visit.check_silence()
    visit.page.locator("[data-plot=measures] svg").focus()
    for _ in range(12):
        visit.press("ArrowRight")
        if told.inner_text().startswith("sub-0003"):
            break
    visit.press("Enter")
    visit.page.wait_for_url("**/sub-0003.html")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_small_screens_in_both_schemes(browser: Any, page_file: Path, scheme: str) -> None:
    visit = Visit(browser, page_file, viewport={"width": 360, "height": 700}, color_scheme=scheme)
    assert visit.page.evaluate("() => document.documentElement.scrollWidth") <= 360
    ground = visit.page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    ground = [int(number) for number in re.findall(r"\d+", ground)]
    assert (min(ground) > 200) if scheme == "light" else (max(ground) < 60)
    visit.check_silence()


def test_tables_are_sorted_and_filtered(browser: Any, report: Path) -> None:
    visit = Visit(browser, report)
    visit.page.locator("th button", has_text="Volume").first.click()
    assert visit.page.locator("th[aria-sort=ascending]").count() == 1
    visit.page.locator("input[type=search]").fill("bankssts")
    assert visit.page.locator("table[data-sortable] tbody tr:visible").count() == 2


def test_on_paper(browser: Any, page_file: Path, report: Path) -> None:
    visit = Visit(browser, page_file)
    visit.page.emulate_media(media="print")
    visit.page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    assert visit.page.locator("details:not([open])").count() == 0
    assert visit.page.locator(".flicker .stack > *:visible").count() == (4 if page_file == report else 0)
    hidden = ".viewer, nav.contents, .controls button, .filter"
    assert not visit.page.locator(hidden).locator("visible=true").count()
    assert visit.page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert visit.page.pdf()[:4] == b"%PDF"
    visit.check_silence()
