"""The report in a browser: it asks for nothing, complains of nothing, and can be read and used by everyone."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from unibrain_bids.reports.participant import write_report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.slow

_FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@pytest.fixture(scope="module")
def report(dataset: Any) -> Path:
    path = write_report(dataset.out, "01", bids_dir=dataset.raw, templates=dataset.templates)
    return shutil.move(path, path.with_name("browser.html"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        try:
            opened = driver.chromium.launch(executable_path=shutil.which("chromium"), args=_FLAGS)
        except playwright.Error as error:
            pytest.skip(f"no browser can be started: {str(error).splitlines()[0]}")
        yield opened
        opened.close()


class Visit:
    """An open report, and what the browser said and asked for."""

    def __init__(self, browser: Any, report: Path, **context: Any) -> None:
        self.page = browser.new_page(**context)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda said: said.type in ("error", "warning") and self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(report.as_uri())

    @property
    def focus(self) -> Any:
        return self.page.locator(":focus")


def test_on_its_own_and_by_keyboard(browser: Any, report: Path) -> None:
    visit = Visit(browser, report, viewport={"width": 1280, "height": 900})
    assert visit.page.locator("img:not([alt])").count() == 0
    assert visit.page.locator("[role=img]:not([aria-label]):not(:has(title))").count() == 0
    visit.page.keyboard.press("Tab")
    assert visit.focus.get_attribute("href") == "#main"
    reached = []
    for _ in range(60):
        visit.page.keyboard.press("Tab")
        reached.append(visit.focus.inner_text() if visit.focus.evaluate("e => e.tagName") == "BUTTON" else "")
        if reached[-1] == "Show the other":
            break
    assert "Open the viewer" in reached and "Flicker" in reached and reached[-1] == "Show the other"
    flicker = visit.page.locator(".flicker").first
    before = flicker.locator("output").inner_text()
    visit.page.keyboard.press("Enter")
    after = flicker.locator("output").inner_text()
    assert (before, after) == ("As scanned", "After correction")
    assert flicker.locator(".stack > :nth-child(2)").is_visible()

    visit.page.locator("[data-open]").press("Enter")
    place = visit.page.locator(".viewer output:not(:empty)")
    place.wait_for(timeout=300_000)
    start = re.findall(r"-?\d+", place.inner_text())
    visit.page.locator(".viewer canvas").focus()
    for _ in range(5):
        visit.page.keyboard.press("ArrowRight")
    assert int(re.findall(r"-?\d+", place.inner_text())[0]) > int(start[0])
    assert [url for url in visit.requests if not url.startswith(("data:", "blob:"))] == [report.as_uri()]
    assert visit.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_small_screens_in_both_schemes(browser: Any, report: Path, scheme: str) -> None:
    visit = Visit(browser, report, viewport={"width": 360, "height": 700}, color_scheme=scheme)
    assert visit.page.evaluate("() => document.documentElement.scrollWidth") <= 360
    light = [visit.page.evaluate("() => getComputedStyle(document.body).backgroundColor")]
    light = [int(number) for number in re.findall(r"\d+", light[0])]
    assert (min(light) > 200) if scheme == "light" else (max(light) < 60)
    visit.page.locator("th button", has_text="Volume").first.click()
    assert visit.page.locator("th[aria-sort=ascending]").count() == 1
    visit.page.locator("input[type=search]").fill("bankssts")
    assert visit.page.locator("table[data-sortable] tbody tr:visible").count() == 2


def test_on_paper(browser: Any, report: Path) -> None:
    visit = Visit(browser, report)
    visit.page.emulate_media(media="print")
    visit.page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    assert visit.page.locator("details:not([open])").count() == 0
    assert visit.page.locator(".flicker .stack > *:visible").count() == 4
    assert not visit.page.locator(".viewer, nav.contents, .controls button").locator("visible=true").count()
    assert visit.page.pdf()[:4] == b"%PDF"
