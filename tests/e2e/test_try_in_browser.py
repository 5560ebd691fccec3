"""`sr3 try` in a real browser: a picture is dropped, enlarged, compared and saved; problems are said on the page."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from tests.e2e.browser import DESKTOP, PHONE, READABLE, WATCH, contrast, luminance
from tests.pipelines.sampling.photos import picture, saved

pytestmark = pytest.mark.quiet
DROP = """
([name, bytes]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], name));
  document.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
}
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a server of the model in the box."""
    command = [sys.executable, "-m", "cluster", "try", "--port", "0", "--max-megapixels", "0.1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    line = process.stdout.readline()
    try:
        assert line.startswith("open in a browser: "), process.communicate()
        yield line.split()[-1]
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def page(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    page = browser.new_page(**request.param)
    page.add_init_script(WATCH)
    page.goto(address)
    page.wait_for_selector("#schedule option:nth-child(2)", state="attached")
    yield page
    assert page.evaluate("trouble") == []
    page.close()


def drop(page: Page, data: bytes, name: str = "cat.png") -> None:
    page.evaluate(DROP, [name, list(data)])


def test_a_dropped_picture_is_enlarged_compared_and_saved(page: Page, tmp_path: Path) -> None:
    assert page.locator("#start").is_disabled()
    drop(page, saved(picture(0, 20, 30)))
    assert "cat.png" in page.inner_text("#dropped")
    page.select_option("#schedule", "4")
    page.fill("#samples", "2")
    page.fill("#seed", "7")
    page.click("#start")
    page.wait_for_selector("#all button:nth-child(2)")
    page.wait_for_selector("#working", state="hidden")
    assert page.inner_text("#size") == "120 x 80"
    for name in ("before", "after"):
        page.wait_for_selector(f"#{name}")
        shown = page.locator(f"#{name}").evaluate("image => image.decode().then(() => image.naturalWidth)")
        assert shown == 120
    page.locator("#slider").fill("20")
    clip = page.locator("#before").evaluate("image => getComputedStyle(image).clipPath")
    assert clip == "inset(0px 80% 0px 0px)", "the left fifth shows interpolation"
    assert page.inner_text("#which") == "the model, seed 7"
    page.click("#all button:nth-child(2)")
    assert page.inner_text("#which") == "the model, seed 8"
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "cat-seed-8.png"
    download.value.save_as(tmp_path / "saved.png")
    assert Image.open(tmp_path / "saved.png").size == (120, 80)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is cut off at the side"


def test_problems_are_said_on_the_page(page: Page) -> None:
    for data, text in ((b"%PDF-1.7", "PDF"), (saved(picture(0, 100, 100)), "0.1 megapixels")):
        drop(page, data)
        page.click("#start")
        page.wait_for_selector("#notice:not([hidden])")
        assert text in page.inner_text("#notice")
        assert page.locator("#start").is_enabled(), "another may be tried"
    for selector in ("#notice", "#start", "#drop", "footer"):
        assert contrast(*(luminance(page, selector, name) for name in ("color", "backgroundColor"))) >= READABLE


def test_a_picture_can_be_cancelled(page: Page) -> None:
    drop(page, saved(picture(0, 70, 70)))
    page.select_option("#schedule", "250")
    page.click("#start")
    page.click("#cancel")
    page.wait_for_selector("#working", state="hidden")
    assert page.locator("#result").is_hidden()
    assert page.locator("#start").is_enabled()
