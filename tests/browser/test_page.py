"""The report in headless Chromium: opened from a file, with the network cut off.

Chromium comes from the operating system; a fresh profile is made for every page.
Without it the tests fail, for a lane that skips would say nothing: whoever selects
them (`pytest -m browser`) has prepared for them.
"""

import re
import shutil

import pytest

from fairjax.audit.formats import NONE
from fairjax.audit.output import write
from tests.audit.example import HOSTILE, example, sketches

pytestmark = pytest.mark.browser
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def executable():
    """The browser's path."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.fail(f"none of {', '.join(NAMES)} is installed")
    return found


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The address of a report on disk."""
    folder = tmp_path_factory.mktemp("audit") / "out"
    return write(example(), folder).resolve().as_uri()


@pytest.fixture(scope="module")
def browser():
    # Imported here, for the tests are collected without the extra too.
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # The sandbox needs rights that containers do not give.
        started = playwright.chromium.launch(
            executable_path=executable(), args=["--no-sandbox"]
        )
        yield started
        started.close()


class Opened:
    """A page, and all that it said and asked for."""

    def __init__(self, browser, address, **options):
        self.told, self.asked, self.dialogs = [], [], []
        self.context = browser.new_context(offline=True, **options)
        # Beside other work, a browser may wait long for its turn.
        self.context.set_default_timeout(120_000)
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.told.append(message.text))
        self.page.on("pageerror", lambda error: self.told.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("dialog", self.dialog)
        self.page.goto(address)

    def dialog(self, dialog):
        self.dialogs.append(dialog.message)
        dialog.dismiss()


@pytest.fixture
def opened(browser, report):
    """Opens the report with the given options of the browser's context."""
    pages = []

    def open_with(**options):
        pages.append(Opened(browser, report, **options))
        return pages[-1]

    yield open_with
    for page in pages:
        assert page.told == []
        assert page.dialogs == []
        page.context.close()


def column(page, caption, number):
    """The texts of a column of the table with the caption."""
    cells = page.locator(f"table:has(caption:text-is('{caption}')) tbody tr")
    return cells.evaluate_all(
        "(rows, k) => rows.map(r => r.cells[k].firstElementChild.textContent)", number
    )


def header(page, caption, number):
    return page.locator(f"table:has(caption:text-is('{caption}')) thead th").nth(number)


def test_it_opens_without_a_network(opened, report):
    found = opened()
    assert found.page.title() == example()["title"]
    fetched = [url for url in found.asked if not url.startswith("data:")]
    assert fetched == [report]


def test_every_figure_is_there(opened):
    images = opened().page.locator("img")
    widths = images.evaluate_all("all => all.map(i => i.complete ? i.naturalWidth : 0)")
    assert len(widths) == len(sketches())
    assert all(width > 0 for width in widths)


def test_names_show_as_text_and_run_nothing(opened):
    found = opened()
    shown = column(found.page, "Cohort by race", 0)
    assert HOSTILE in shown
    assert found.page.locator("script").count() == 1
    assert found.dialogs == []


def test_an_injected_script_is_refused(browser, report):
    found = Opened(browser, report)
    found.page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "document.title = 'run'";
            document.body.append(script);
        }"""
    )
    assert found.page.title() == example()["title"]
    assert any("Content Security Policy" in text for text in found.told)
    found.context.close()


def test_columns_sort_by_number_with_missing_ones_last(opened):
    page = opened().page
    caption = "Cohort by sex × race"
    before = column(page, caption, 1)
    button = header(page, caption, 1).get_by_role("button")
    for order in ("ascending", "descending"):
        button.click()
        assert header(page, caption, 1).get_attribute("aria-sort") == order
        shown = column(page, caption, 1)
        assert sorted(shown) == sorted(before)
        numbers = [int(t.replace(",", "")) for t in shown if t[0].isdigit()]
        assert len(numbers) == 8
        assert shown[8:] == [NONE, NONE]
        assert numbers == sorted(numbers, reverse=order == "descending")
        said = page.locator("#announce").text_content()
        assert said == f"Sorted by Rows, {order}"
    header(page, caption, 0).get_by_role("button").click()
    assert header(page, caption, 1).get_attribute("aria-sort") is None
    names = column(page, caption, 0)
    assert names[0].startswith("F, ")
    assert names[-1].startswith("M, ")


def test_sorting_keeps_the_whole_on_top_and_equal_rows_in_order(opened):
    page = opened().page
    caption = "Decisions at the threshold by sex × race, risk"
    button = header(page, caption, 1).get_by_role("button")
    for _ in range(2):
        button.click()
        names = column(page, caption, 0)
        assert names[0] == "All patients"
        missing = [n for n in names if HOSTILE in n or "=cmd()" in n]
        assert names[-4:] == missing
        assert missing[0].startswith(f"F, {HOSTILE}")


def test_the_keyboard_reaches_everything(opened):
    page = opened().page
    page.keyboard.press("Tab")
    focused = "document.activeElement"
    assert page.evaluate(f"{focused}.textContent") == "Skip to the summary"
    box = page.locator(".skip").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate(f"{focused}.id") == "content"
    for _ in range(6):
        page.keyboard.press("Tab")
        if page.evaluate(f"{focused}.tagName") == "BUTTON":
            break
    assert page.evaluate(f"{focused}.closest('th') !== null")
    outline = page.evaluate(f"getComputedStyle({focused}).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    state = f"{focused}.closest('th').getAttribute('aria-sort')"
    assert page.evaluate(state) == "ascending"
    page.keyboard.press(" ")
    assert page.evaluate(state) == "descending"


def test_screen_readers_find_landmarks_tables_and_figures(opened):
    page = opened().page
    for role in ("banner", "navigation", "main"):
        assert page.get_by_role(role).count() == 1
    assert page.get_by_role("heading", level=1).count() == 1
    table = page.get_by_role("table", name="Gate rules")
    assert table.count() == 1
    assert table.get_by_role("columnheader", name="Result").count() == 1
    assert table.get_by_role("rowheader").count() == 3
    assert page.get_by_role("img", name=re.compile("Forest plot")).count() == 24


def shade(page, selector, name):
    colour = page.locator(selector).first.evaluate(
        "(element, name) => getComputedStyle(element)[name]", name
    )
    return sum(int(part) for part in re.findall(r"\d+", colour)[:3]) / 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(opened, scheme):
    page = opened(color_scheme=scheme).page
    back = shade(page, "main > section", "backgroundColor")
    ink = shade(page, "main > section td", "color")
    assert (back < 60 < 200 < ink) == (scheme == "dark")
    assert (ink < 60 < 200 < back) == (scheme == "light")
    # Figures are drawn in dark ink, and stand on white either way.
    assert shade(page, ".paper", "backgroundColor") in (
        (255,) if scheme == "dark" else (0, 255)
    )


@pytest.mark.parametrize("width", [320, 400, 768, 1280])
def test_the_page_never_scrolls_sideways(opened, width):
    page = opened(viewport={"width": width, "height": 800}).page
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_print_opens_what_is_folded_and_cuts_nothing(opened):
    page = opened(viewport={"width": 690, "height": 1000}).page
    page.emulate_media(media="print")
    hidden = "all => all.filter(t => t.getBoundingClientRect().height === 0).length"
    assert page.locator("details table").evaluate_all(hidden) == 0
    beyond = "all => all.filter(t => t.getBoundingClientRect().right > 691).length"
    assert page.locator("table").evaluate_all(beyond) == 0
    assert page.locator("img").evaluate_all(beyond) == 0
    assert len(page.pdf()) > 100_000


def test_without_scripts_all_is_readable(opened):
    page = opened(java_script_enabled=False).page
    assert page.get_by_role("button").count() == 0
    assert page.locator("table").count() > 50
    summary = page.locator("details summary").first
    summary.click()
    assert page.locator("details table").first.is_visible()


def test_folded_tables_open_before_printing_and_close_after(opened):
    page = opened().page
    count = "document.querySelectorAll('details[open]').length"
    page.locator("details summary").first.click()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(count) == page.locator("details").count() > 1
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(count) == 1
