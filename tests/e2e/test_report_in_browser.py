"""The report in a real browser: pictures decode, the lightbox and slider work, phones and dark mode are readable."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page

from pipelines.report.html_report import write_report
from tests.e2e.browser import READABLE, contrast, luminance
from tests.reporting import make_run

pytestmark = pytest.mark.quiet
MAX_PAGES = 14
"""On paper, of a run with two searches, twelve samples and no study."""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> str:
    """Address of a complete report."""
    return write_report(str(make_run(tmp_path_factory.mktemp("run"), photos).path)).as_uri()


@pytest.fixture
def page(browser: Browser, report: str) -> Iterator[Page]:
    """The report on a desktop; fails at the end if the browser complained or asked for another file."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request", lambda r: None if r.url.startswith(("data:", report)) else complaints.append(f"asked for {r.url}")
    )
    page.goto(report)
    yield page
    page.close()
    assert complaints == []


def test_every_image_decodes(page: Page) -> None:
    widths = page.eval_on_selector_all("img[src]", "images => images.map(i => i.complete && i.naturalWidth)")
    assert len(widths) >= 60
    assert set(widths) == {4, 16, 64}  # a patch of the input is 4 pixels wide


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_the_verdict_and_the_first_picture_are_seen_at_once(
    browser: Browser, report: str, width: int, height: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(report)
    for part in (".say", ".first [data-title=SR3] img", ".first [data-title=Original] img"):
        box = page.locator(part).bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < height, part
        assert box["x"] + box["width"] <= width, part
    page.close()


def test_lightbox_opens_walks_and_closes(page: Page) -> None:
    picture = page.locator("#samples .row").nth(1).get_by_role("button").nth(3)
    picture.click()
    assert page.locator("#lightbox").is_visible()
    assert page.locator("#shown").inner_text() == "SR3, image 2"
    assert page.evaluate("document.getElementById('large').naturalWidth") == 64
    page.keyboard.press("ArrowRight")
    assert page.locator("#shown").inner_text() == "Original, image 2"
    page.keyboard.press("ArrowDown")
    assert page.locator("#shown").inner_text() == "Original, image 3"
    page.get_by_role("button", name="Input", exact=True).click()
    assert page.locator("#shown").inner_text() == "Input, image 3"
    page.keyboard.press("Escape")
    assert not page.locator("#lightbox").is_visible()
    assert page.evaluate("document.activeElement.dataset.title") == "Input"


def test_lightbox_opens_by_keyboard(page: Page) -> None:
    page.locator("#samples .row button").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#lightbox").is_visible()
    page.get_by_role("button", name="close (Esc)").click()
    assert not page.locator("#lightbox").is_visible()


def test_slider_moves_the_border(page: Page) -> None:
    def clip() -> str:
        return page.eval_on_selector(".compare .over", "image => getComputedStyle(image).clipPath")

    def border() -> float:
        return page.locator(".compare i").bounding_box()["x"] + 1 - frame["x"]

    page.locator(".compare").scroll_into_view_if_needed()
    frame = page.locator(".compare").bounding_box()
    before = clip()
    page.mouse.move(frame["x"] + frame["width"] / 2, frame["y"] + 60)
    page.mouse.down()
    page.mouse.move(frame["x"] + frame["width"] / 4, frame["y"] + 60, steps=5)
    page.mouse.up()
    assert clip() != before
    assert border() == pytest.approx(frame["width"] / 4, abs=12)
    page.locator("#slider").focus()
    dragged = clip()
    page.keyboard.press("End")
    assert clip() != dragged
    assert border() == pytest.approx(frame["width"], abs=3)


def test_slider_compares_any_two_methods(page: Page) -> None:
    page.locator("#left").select_option("Regression")
    page.locator("#right").select_option("Original")
    page.get_by_role("button", name="Next image").click()
    row = page.locator("#samples .row").nth(1)
    for picture, method in ((".over", "Regression"), (".under", "Original")):
        wanted = row.locator(f'[data-title="{method}"] img').get_attribute("src")
        assert page.locator(f".compare {picture}").get_attribute("src") == wanted


def test_switches_smooth_and_enlarge(page: Page) -> None:
    def style(name: str) -> str:
        return page.locator("#samples .row img").first.evaluate(f"image => getComputedStyle(image).{name}")

    assert style("imageRendering") == "pixelated"
    page.get_by_label("smooth pixels").check()
    assert style("imageRendering") == "auto"
    page.get_by_label("enlarge a patch").check()
    assert style("transform").startswith("matrix(4,")


def test_a_patchs_frame_is_where_the_patch_was_cut(page: Page) -> None:
    figure = page.locator(".patch figure").last
    picture, frame = figure.locator(".frame img").bounding_box(), figure.locator(".frame i").bounding_box()
    assert frame["width"] == pytest.approx(picture["width"] / 4, abs=1)
    assert picture["x"] - 1 <= frame["x"] <= picture["x"] + 0.75 * picture["width"] + 1
    # The pixels under the frame's corner are the patch's corner.
    same = figure.evaluate(
        """figure => {
          const [whole, patch] = figure.querySelectorAll("img"), box = figure.querySelector("i");
          const pixel = (image, x, y) => {
            const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
            canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
            context.drawImage(image, 0, 0);
            return [...context.getImageData(x, y, 1, 1).data].join();
          };
          const scale = whole.naturalWidth / whole.getBoundingClientRect().width;
          const x = Math.round(box.offsetLeft * scale), y = Math.round(box.offsetTop * scale);
          return [0, 5, 15].every((d) => pixel(whole, x + d, y + d) === pixel(patch, d, d));
        }"""
    )
    assert same


def test_tables_of_other_tasks_unfold(page: Page) -> None:
    assert not page.locator("#paper table.beside").first.is_visible()
    for table in (page.locator("#paper details").first, page.locator("#paper details.table").last):
        table.locator("summary").click()
    assert page.locator("#paper th", has_text="How the setting differs").first.is_visible()
    assert "13.1" in page.locator("#paper table.beside").last.inner_text()


def test_table_of_images_sorts(page: Page) -> None:
    page.get_by_text("Every image in numbers").click()
    table = page.locator("table.sortable")
    table.get_by_role("button", name=re.compile("PSNR.*SR3")).click()
    column = page.evaluate(
        "[...document.querySelectorAll('table.sortable th')].findIndex(h => h.hasAttribute('aria-sort'))"
    )
    values = [float(row.split("\t")[column]) for row in table.locator("tbody").inner_text().splitlines() if row]
    assert values == sorted(values)


def test_phone_has_no_sideways_scroll(browser: Browser, report: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844}, has_touch=True)
    page.goto(report)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator("#samples .row img").first.bounding_box()["width"] > 55
    spare = "element => element.clientWidth - element.scrollWidth"
    assert page.locator("#results .scroll").first.evaluate(spare) == 0, "every method's distance is in sight"
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_schemes(browser: Browser, report: str, scheme: Literal["light", "dark"]) -> None:
    page = browser.new_page(color_scheme=scheme)
    page.goto(report)
    ground = luminance(page, "body", "backgroundColor")
    assert ground < 0.05 if scheme == "dark" else ground > 0.9
    for selector in ("body", ".lead", ".small", ".note", "td.best", ".tag.two", "nav a", "#paper th"):
        assert contrast(luminance(page, selector, "color"), ground) >= READABLE, selector
    for selector in ("#paper td.setting", "#paper tr.dim td", ".differences", ".patch figcaption", "details summary"):
        assert contrast(luminance(page, selector, "color"), ground) >= READABLE, selector
    tint = luminance(page, ".say", "backgroundColor")
    assert contrast(luminance(page, ".say p", "color"), tint) >= READABLE
    page.close()


def test_prints_without_controls_in_light_colours(browser: Browser, report: str) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto(report)
    page.emulate_media(media="print")
    assert luminance(page, "body", "backgroundColor") > 0.9
    assert not page.locator("nav").is_visible()
    assert not page.locator("#compare").is_visible()
    assert page.locator("#samples .row").first.is_visible()
    for part in ("h4", "summary", "#samples .heads"):
        look = page.locator(part).first.evaluate("element => getComputedStyle(element).breakAfter")
        assert look == "avoid", f"{part} is not left alone at the end of a page"
    pages = len(re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4")))
    assert 2 <= pages <= MAX_PAGES, "what is folded away on the screen is not printed"
    page.close()
