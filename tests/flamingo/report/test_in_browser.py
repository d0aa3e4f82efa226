"""The page in a real browser, from a file: quiet, readable in both themes, hostile text as text."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flamingo.report.options import TrainReport
from flamingo.report.page import train_report
from tests.browser import FAINT, WHY_NOT, WIDEST, find_browser, running_browser
from tests.flamingo.report.run_factory import hostile_run, make_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_browser() is None, reason=WHY_NOT),
]
SCREENSHOTS = Path(__file__).resolve().parents[3] / "build" / "screenshots"


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with running_browser() as running:
        yield running


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    runs = {
        "plain": make_run(folder / "plain", ranks=8),
        "hostile": hostile_run(folder / "hostile"),
    }
    return {name: Path(train_report(TrainReport(run=str(run))).path) for name, run in runs.items()}


@pytest.mark.parametrize("width", [1100, 390])
@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("name", ["plain", "hostile"])
def test_it_opens_in_silence_fits_its_window_and_can_be_read(
    browser: "Browser", pages: dict[str, Path], name: str, colours: str, width: int
) -> None:
    """WCAG AA: 4.5 to 1 for every text, numbers behind the charts included."""
    page = browser.new_page(
        viewport={"width": width, "height": 900},
        color_scheme=colours,  # type: ignore[arg-type]
    )
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(pages[name].as_uri())
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"train-{name}-{colours}-{width}.png", full_page=True)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert page.title() == f"{name} - training report"
    assert page.locator("h1").count() == 1
    assert page.locator("script").count() == 1
    assert page.evaluate(FAINT) == []
    assert page.evaluate(WIDEST) <= width
    page.close()


def test_a_pointer_is_told_the_values_of_a_step(browser: "Browser", pages: dict[str, Path]) -> None:
    page = browser.new_page()
    page.goto(pages["plain"].as_uri())
    chart = page.get_by_role("group", name="Training loss, nats per token")
    told = chart.locator("rect.hit title").nth(20).text_content()
    assert told is not None
    step, pairs, web = told.split("\n")
    assert step.startswith("step 2")
    assert pairs.startswith("pairs ")
    assert web.startswith("web ")
    page.close()
