"""The page in a real browser, from a file: nothing is fetched, filters filter, text stays text.

A screenshot of each view is kept in `build/screenshots/`, to be looked at. Skipped where there is
no browser (tests/browser.py says why).
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipelines.mmc4.options import ConvertMmc4
from pipelines.mmc4.run import convert_mmc4
from tests.browser import FAINT, WHY_NOT, WIDEST, find_browser, running_browser
from tests.report_factory import hostile_dataset, write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_browser() is None, reason=WHY_NOT),
]

SCREENSHOTS = Path(__file__).resolve().parents[3] / "build" / "screenshots"
SECTIONS = ("overview", "flow", "distributions", "findings", "provenance", "gallery")
#: name -> width in px, colours of the system.
VIEWS = {
    "light": (1000, "light"),
    "dark": (1000, "dark"),
    "phone-light": (390, "light"),
    "phone-dark": (390, "dark"),
}
MAX_SHOT = 2400  # px of a section; a gallery is long


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with running_browser() as running:
        yield running


@pytest.fixture(scope="module")
def sample_page(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the sample, with a threshold at which training leaves something out."""
    folder = tmp_path_factory.mktemp("sample")
    convert_mmc4(
        ConvertMmc4(
            docs=(str(sample),),
            images=str(sample / "images"),
            output=str(folder / "shards"),
            num_shards=4,
            workers=0,
        )
    )
    output = folder / "report.html"
    write_report(
        folder / "shards", output, documents=20, extremes=5, min_similarity=0.3, title="Sample"
    )
    return output


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    hostile_dataset(folder / "shards")
    write_report(folder / "shards", folder / "report.html")
    return folder / "report.html"


class Visit:
    """A page that was opened, what its console said, and what it asked for."""

    def __init__(self, browser: "Browser", path: Path, view: str = "light") -> None:
        width, scheme = VIEWS[view]
        options: Any = {"color_scheme": scheme, "viewport": {"width": width, "height": 900}}
        self.page: Page = browser.new_page(**options)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def shown(self) -> list[str]:
        """Keys of the documents that are to be seen, in order."""
        return self.page.locator("#cards article:visible h3").all_inner_texts()

    def choose(self, name: str, value: str) -> None:
        self.page.locator(f"[name={name}]").select_option(value)

    def fill(self, name: str, value: str) -> None:
        self.page.locator(f"[name={name}]").fill(value)

    def told(self) -> str:
        return self.page.locator("#shown").inner_text()


@pytest.fixture
def visit(browser: "Browser", sample_page: Path) -> Iterator[Visit]:
    made = Visit(browser, sample_page)
    yield made
    made.page.close()


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_opens_from_a_file_without_a_word_and_fits_its_width(
    browser: "Browser", sample_page: Path, view: str
) -> None:
    visited = Visit(browser, sample_page, view)
    page = visited.page
    assert visited.said == []
    assert [url for url in visited.asked if not url.startswith("data:")] == [sample_page.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= VIEWS[view][0]
    assert page.evaluate(WIDEST) <= VIEWS[view][0] - 16
    unread = "Array.from(document.images).filter(i => !(i.complete && i.naturalWidth > 0)).length"
    assert page.evaluate(unread) == 0
    take_screenshots(page, view)
    page.close()


def take_screenshots(page: "Page", view: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{view}-top.png")
    page.evaluate("document.querySelector('nav').style.position = 'static'")
    for section in SECTIONS:
        box = page.locator(f"#{section}").bounding_box()
        assert box is not None
        clip: Any = {"x": 0, "y": box["y"] - 8, "width": VIEWS[view][0]}
        clip["height"] = min(box["height"] + 16, MAX_SHOT)
        page.screenshot(path=SCREENSHOTS / f"{view}-{section}.png", clip=clip, full_page=True)


class TestFilters:
    def test_all_are_shown_at_first(self, visit: Visit) -> None:
        assert len(visit.shown()) > 20
        assert visit.told() == f"{len(visit.shown())} of {len(visit.shown())} documents"

    @pytest.mark.parametrize(("name", "number"), [("random", 20), ("worst", 5), ("best", 5)])
    def test_by_the_set_that_a_document_is_in(self, visit: Visit, name: str, number: int) -> None:
        visit.choose("set", name)
        assert len(visit.shown()) == number
        assert visit.told().startswith(f"{number} of ")

    def test_by_reason(self, visit: Visit) -> None:
        everything = len(visit.shown())
        visit.choose("reason", "=below-similarity")
        dropped = visit.shown()
        chips = visit.page.locator("#cards article:visible").all_inner_texts()
        assert 0 < len(dropped) < everything
        assert all("below-similarity" in text for text in chips)
        visit.choose("reason", "-")
        clean = visit.page.locator("#cards article:visible").all_inner_texts()
        assert 0 < len(clean) < everything
        assert not any("not trained on" in text for text in clean)

    def test_by_similarity(self, visit: Visit) -> None:
        visit.fill("similarity-min", "0.32")
        visit.fill("similarity-max", "0.34")
        values = similarities(visit)
        assert 0 < len(values) < 30
        assert all(0.32 <= value <= 0.34 for value in values)

    def test_by_images(self, visit: Visit) -> None:
        visit.fill("images-min", "2")
        visit.fill("images-max", "3")
        facts = visit.page.locator("#cards article:visible .facts-line").all_inner_texts()
        assert facts
        assert {text.split(" ", 1)[0] for text in facts} <= {"2", "3"}

    def test_by_all_of_them_and_nothing_is_left(self, visit: Visit) -> None:
        visit.choose("set", "best")
        visit.fill("similarity-max", "0.1")
        assert visit.shown() == []
        assert visit.told().startswith("0 of ")

    def test_order_and_reset(self, visit: Visit) -> None:
        picked = visit.shown()
        visit.choose("order", "up")
        assert similarities(visit) == sorted(similarities(visit))
        visit.choose("order", "down")
        assert similarities(visit) == sorted(similarities(visit), reverse=True)
        visit.choose("set", "worst")
        visit.page.get_by_role("button", name="Reset").click()
        deadline = (
            time.monotonic() + 300
        )  # not wait_for_function: it asks for eval, which CSP forbids
        while visit.shown() != picked and time.monotonic() < deadline:
            visit.page.wait_for_timeout(50)
        assert visit.shown() == picked

    def test_worst_are_worse_than_best(self, visit: Visit) -> None:
        visit.choose("set", "worst")
        worst = similarities(visit)
        visit.choose("set", "best")
        assert max(worst) < min(similarities(visit))


def similarities(visit: Visit) -> list[float]:
    cards = "Array.from(document.querySelectorAll('#cards article:not([hidden])'))"
    found: list[float] = visit.page.evaluate(f"{cards}.map(c => Number(c.dataset.similarity))")
    return found


class TestHostile:
    def test_a_hostile_document_stays_text(self, browser: "Browser", hostile_page: Path) -> None:
        visited = Visit(browser, hostile_page)
        page = visited.page
        assert page.title().endswith("dataset report")
        assert visited.said == []
        assert page.locator("script").count() == 1
        assert page.locator("h1").count() == 1
        assert page.locator("img:not([alt^='Image '])").count() == 0
        assert page.locator("#cards article").count() == 2
        assert page.locator("body").is_visible()
        assert "<script>document.title='owned'</script>" in page.locator("#gallery").inner_text()
        visited.choose("reason", page.locator("[name=reason] option").nth(2).get_attribute("value"))
        assert visited.told().startswith("1 of 2")
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.locator("#gallery").screenshot(path=SCREENSHOTS / "hostile-gallery.png")
        page.close()

    def test_even_markup_that_got_in_could_not_run_or_fetch(
        self, browser: "Browser", sample_page: Path
    ) -> None:
        visited = Visit(browser, sample_page)
        visited.page.evaluate(
            """document.body.insertAdjacentHTML('beforeend',
                '<img src="https://example.org/x.png" onerror="document.title = 1">' +
                '<img src="data:," onerror="document.title = 1">' +
                '<iframe src="https://example.org/"></iframe>')"""
        )
        visited.page.wait_for_timeout(300)
        assert visited.page.title() == "Sample - dataset report"
        assert sum("Content Security Policy" in text for text in visited.said) >= 3
        visited.page.close()


class TestReading:
    def test_nothing_moves_while_it_loads(self, visit: Visit) -> None:
        shift = visit.page.evaluate(
            """new Promise(done => {
                let sum = 0;
                new PerformanceObserver(list => {
                    for (const entry of list.getEntries()) sum += entry.value;
                }).observe({type: 'layout-shift', buffered: true});
                setTimeout(() => done(sum), 300);
            })"""
        )
        assert shift < 0.001

    def test_the_keyboard_reaches_everything_in_order_and_shows_where_it_is(
        self, visit: Visit
    ) -> None:
        page = visit.page
        seen = []
        for _ in range(9):
            page.keyboard.press("Tab")
            seen.append(page.evaluate(FOCUSED))
        names = [name for name, _ in seen]
        assert names[0] == "Skip to the figures"
        assert names[1] == "auto"
        assert names[2:8] == [
            *("Overview", "Flow", "Distributions", "Findings", "Provenance", "Gallery"),
        ]
        assert all(outline >= 2 for _, outline in seen)

    def test_the_theme_can_be_switched_with_the_keyboard(self, visit: Visit) -> None:
        page = visit.page
        back = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(back)
        page.locator("#theme input").first.focus()
        page.keyboard.press("ArrowLeft")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert page.evaluate(back) != light
        page.keyboard.press("ArrowLeft")
        assert page.evaluate(back) == light

    @pytest.mark.parametrize("view", ["light", "dark"])
    def test_text_stands_out_from_what_is_behind_it(
        self, browser: "Browser", sample_page: Path, view: str
    ) -> None:
        """WCAG AA: 4.5 to 1, for every text that is to be seen."""
        visited = Visit(browser, sample_page, view)
        steps = "".join(f'<p class="h{step}">step {step}</p>' for step in range(10))
        visited.page.evaluate("html => document.body.insertAdjacentHTML('beforeend', html)", steps)
        assert visited.page.evaluate(FAINT) == []
        visited.page.close()

    def test_a_screen_reader_gets_sections_tables_and_pictures_in_words(self, visit: Visit) -> None:
        page = visit.page
        for name in ("Overview", "From input to training", "Distributions", "Findings", "Gallery"):
            assert page.get_by_role("region", name=name, exact=True).count() == 1
        assert page.get_by_role("img", name="Histogram of").count() >= 8
        assert page.get_by_role("navigation", name="Sections").count() == 1
        assert page.get_by_role("article").count() > 20
        matrix = page.get_by_role("table", name="Similarity of the images").first
        assert matrix.get_by_role("columnheader").count() >= 2
        assert matrix.get_by_role("cell", name="chosen").count() >= 1

    def test_without_script_everything_is_there(
        self, browser: "Browser", sample_page: Path
    ) -> None:
        context = browser.new_context(java_script_enabled=False)
        page = context.new_page()
        page.goto(sample_page.as_uri())
        assert page.locator("#cards article:visible").count() > 20
        assert not page.locator("#filters").is_visible()
        context.close()


#: Name of the focused element, and the width of what shows the focus (of a radio: its label).
FOCUSED = """(() => {
    const element = document.activeElement;
    const shown = element.type === 'radio' ? element.nextElementSibling : element;
    const style = getComputedStyle(shown);
    const width = style.outlineStyle === 'none' ? 0 : parseFloat(style.outlineWidth);
    return [element.value || element.innerText, width];
})()"""
