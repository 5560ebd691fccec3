"""A whole study in a real browser: people at once by mouse, keys and touch; exposure measured frame by frame."""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from pipelines.study.database import answers, open_existing, participants
from pipelines.study.results import write_results
from pipelines.study.study_folder import Study
from tests.e2e.test_report_in_browser import ARGUMENTS, READABLE, _contrast, _find_browser, _luminance
from tests.study_subjects import Server, command, make_study, running

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
async_api = pytest.importorskip("playwright.async_api", reason="playwright is not installed")

WATCH = """
// Independent of the page's own measurement: whenever something changes, looks whether images can be seen.
window.exposures = []; window.trouble = [];
addEventListener("error", (event) => window.trouble.push(String(event.message)));
addEventListener("securitypolicyviolation", (event) => window.trouble.push(event.violatedDirective));
(() => {
  let shown = null;
  const isSeen = (image) => getComputedStyle(image).visibility === "visible";
  const look = () => { // in the same frame in which the page changes: the timeline has that frame's time stamp
    const now = document.timeline.currentTime, seen = [...document.querySelectorAll("#pair img")].filter(isSeen);
    if (seen.length && !shown) {
      const whole = seen.every((image) => image.complete && image.naturalWidth > 0);
      shown = {start: now, frames: [now], count: seen.length, whole, scrolled: outside(seen)};
    } else if (!seen.length && shown) {
      window.exposures.push({...shown, end: now, frames: [...shown.frames, now]});
      shown = null;
    }
  };
  const tick = (now) => {
    if (shown && now > shown.frames.at(-1)) shown.frames.push(now);
    requestAnimationFrame(tick);
  };
  const outside = (seen) => seen.some((image) => {
    const box = image.getBoundingClientRect();
    return box.top < 0 || box.left < 0 || box.bottom > innerHeight || box.right > innerWidth || box.width < 60;
  });
  addEventListener("DOMContentLoaded", () => {
    const pair = document.querySelector("#pair"), all = {attributes: true, childList: true, subtree: true};
    if (pair) new MutationObserver(look).observe(pair, all);
    requestAnimationFrame(tick);
  });
})();
"""

WAITING = "() => document.querySelector('.choice:enabled') || !document.querySelector('#end').hidden \
|| !document.querySelector('#break').hidden"
PHONE = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
DESKTOP = {"viewport": {"width": 1280, "height": 800}}


@pytest.fixture(scope="module")
def chromium() -> str:
    """Path of the browser."""
    path = _find_browser()
    if path is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium, or name one in CHROMIUM")
    return path


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator["sync_api.Browser"]:
    """Headless Chromium of this machine."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Study:
    """Many places; one pair of practice, three that count, a check."""
    changes: dict[str, Any] = {"trials_per_subject": 3, "subjects_per_model": 20, "viewing_seconds": (0.2,)}
    url = "https://recruiter.example/done?cc={code}&who={participant}"
    folder = tmp_path_factory.mktemp("browser")
    return make_study(folder, photos, completion_url=url, contact="study@lab.example", **changes)


@pytest.fixture(scope="module")
def server(study: Study) -> Iterator[Server]:
    """A server of it."""
    with running(command(study.path)) as started:
        yield started


def assert_exposed(exposures: list[dict[str, Any]], seconds: float, num_images: int) -> None:
    """Each was visible for the viewing time to within a frame, of whatever length the machine made frames."""
    for exposure in exposures:
        longest_frame = max(later - earlier for earlier, later in pairwise(exposure["frames"]))
        error = exposure["end"] - exposure["start"] - 1000 * seconds
        assert abs(error) <= longest_frame + 0.2  # stamps are rounded to 0.1 ms
        assert exposure["count"] == num_images
        assert exposure["whole"]  # loaded and decoded before the first frame
        assert not exposure["scrolled"]  # nobody has to scroll to see an image


Choose = Callable[["async_api.Page", int], Awaitable[None]]


async def by_mouse(page: "async_api.Page", number: int) -> None:
    await page.locator(".choice").nth(number % 2).click()


async def by_touch(page: "async_api.Page", number: int) -> None:
    await page.locator(".choice").nth(number % 2).tap()


async def by_key(page: "async_api.Page", number: int) -> None:
    await page.keyboard.press(("1", "ArrowRight", "ArrowLeft", "2")[number % 4])


async def by_tab_and_space(page: "async_api.Page", number: int) -> None:
    await page.locator(".choice").nth(number % 2).focus()
    await page.keyboard.press("Space")


async def visit(
    browser: "async_api.Browser", address: str, name: str, options: dict[str, Any], choose: Choose, reload_at: int = -1
) -> dict[str, Any]:
    """One person from the first page to the code; a reload in the middle where asked."""
    page = await (await browser.new_context(**options)).new_page()
    await page.add_init_script(WATCH)
    await page.goto(f"{address}?PROLIFIC_PID={name}&STUDY_ID=x")
    await page.check("#agree")
    await page.click("#start")
    await page.click("#go")
    number, exposures = 0, []
    while True:
        await page.wait_for_function(WAITING)
        if await page.locator("#end").is_visible():
            break
        if await page.locator("#break").is_visible():
            await page.click("#continue")
            await page.wait_for_selector("#trial:not([hidden])")
        elif number == reload_at:
            exposures += await page.evaluate("exposures")
            await page.reload()
            reload_at = -1
        else:
            await choose(page, number)
            number += 1
            await page.wait_for_function("() => !document.querySelector('.choice:enabled')")
    exposures += await page.evaluate("exposures")
    end = {"code": await page.inner_text("#code"), "link": await page.get_attribute("#redirect", "href")}
    trouble = await page.evaluate("trouble")
    await page.context.close()
    return {**end, "exposures": exposures, "answers": number, "trouble": trouble}


def test_people_at_once_by_mouse_keys_touch_and_with_a_reload(chromium, study, server):
    async def everybody() -> list[dict[str, Any]]:
        async with async_api.async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
            found = await asyncio.gather(
                visit(browser, server.address, "mouse", DESKTOP, by_mouse),
                visit(browser, server.address, "keys", DESKTOP, by_key),
                visit(browser, server.address, "space", DESKTOP, by_tab_and_space),
                visit(browser, server.address, "touch", PHONE, by_touch),
                visit(browser, server.address, "reload", DESKTOP, by_key, reload_at=2),
            )
            await browser.close()
            return found

    ends = asyncio.run(everybody())
    names = ("mouse", "keys", "space", "touch", "reload")
    for name, end in zip(names, ends, strict=True):
        assert end["code"] == study.config.completion_code
        assert end["link"] == f"https://recruiter.example/done?cc={end['code']}&who={name}"
        assert end["answers"] == study.config.num_positions == 5
        assert end["trouble"] == []
        assert len(end["exposures"]) == 5 + (name == "reload")
        assert_exposed(end["exposures"], 0.2, num_images=3)
    database = open_existing(None, study.sqlite_path, study.fingerprint)
    with database.read() as connection:
        rows = connection.execute(
            sa.select(participants.c.external_id, answers).join(answers).order_by(answers.c.position)
        ).all()
    database.close()
    assert Counter(row.external_id for row in rows) == dict.fromkeys(names, 5)
    for row in rows:
        end = ends[names.index(row.external_id)]
        assert (row.focus_lost_viewing, row.focus_lost_answering) == (0, 0)
        assert row.num_presentations == (2 if row.external_id == "reload" and row.position == 2 else 1)
        if row.external_id != "reload":  # what the page reports is what the frames were
            shown = end["exposures"][row.position]
            assert row.exposure_seconds == pytest.approx((shown["end"] - shown["start"]) / 1000, abs=1e-3)
    chosen = {name: [row.chose_first for row in rows if row.external_id == name] for name in names}
    assert chosen["mouse"] == chosen["touch"] == chosen["space"] == [True, False, True, False, True]
    assert chosen["keys"] == [True, False, True, False, True]
    assert write_results([str(study.path)], num_replicates=200)["tasks"][0]["num_answers"] == 5 * 3


def test_three_seconds_are_three_seconds_to_the_frame(browser, photos, tmp_path):
    plain = {"num_practice_trials": 0, "num_attention_checks": 0, "trials_per_subject": 1, "task": 2}
    study = make_study(tmp_path, photos, viewing_seconds=(3.0,), **plain)
    with running(command(study.path)) as server:
        page = browser.new_page(**DESKTOP)
        page.add_init_script(WATCH)
        begin(page, server, "three")
        page.wait_for_selector(".choice:enabled")
        exposures = page.evaluate("exposures")
        page.close()
    assert len(exposures) == 1
    assert_exposed(exposures, 3.0, num_images=2)
    (shown,) = exposures
    print(f"visible for {shown['end'] - shown['start']:.1f} ms")


def begin(page: "sync_api.Page", server: Server, name: str) -> None:
    """Agree and start."""
    page.goto(f"{server.address}?participant={name}")
    page.check("#agree")
    page.click("#start")
    page.click("#go")


@pytest.fixture
def page(browser: "sync_api.Browser") -> Iterator["sync_api.Page"]:
    """A desktop's page that watches itself."""
    page = browser.new_page(**DESKTOP)
    page.add_init_script(WATCH)
    yield page
    assert page.evaluate("trouble") == []
    page.close()


def test_the_images_are_gone_after_the_time_and_so_are_their_addresses(page, server):
    seen = []
    page.on("response", lambda response: seen.append(response) if "/image/" in response.url else None)
    begin(page, server, "gone")
    page.wait_for_selector(".choice:enabled")
    assert page.locator("#pair img").count() == 0
    assert len(seen) == 3
    assert {len(response.body()) for response in seen} == {len(seen[0].body())}  # sizes tell nothing
    for response in seen:
        assert page.request.get(response.url).status == 404


def test_an_answer_cannot_be_given_while_images_are_visible(page, server):
    begin(page, server, "hasty")
    page.wait_for_function("() => document.querySelector('#pair').classList.contains('shown')")
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    page.wait_for_selector(".choice:enabled")  # still open
    assert page.inner_text("#count") == "1 of 5"


def test_lost_focus_is_counted(page, server, study):
    begin(page, server, "distracted")
    page.wait_for_function("() => document.querySelector('#pair').classList.contains('shown')")
    page.evaluate("dispatchEvent(new Event('blur')); dispatchEvent(new Event('focus'))")
    page.wait_for_selector(".choice:enabled")
    page.evaluate(
        "for (let i = 0; i < 2; i++) { dispatchEvent(new Event('blur')); dispatchEvent(new Event('focus')); }"
    )
    with page.expect_response("**/api/answer") as stored:
        page.keyboard.press("1")
    assert stored.value.json() == {"stored": True, "position": 1}
    database = open_existing(None, study.sqlite_path, study.fingerprint)
    with database.read() as connection:
        row = connection.execute(sa.select(answers).join(participants).filter_by(external_id="distracted")).one()
    database.close()
    assert (row.focus_lost_viewing, row.focus_lost_answering) == (1, 2)


def test_leaving_deletes_the_answers(page, server, study):
    begin(page, server, "leaver")
    page.wait_for_selector(".choice:enabled")
    page.keyboard.press("1")
    page.click("#leave")
    page.click("#stay")
    assert not page.locator("#confirm").is_visible()
    page.click("#leave")
    page.click("#really")
    page.wait_for_selector("#end:not([hidden])")
    assert page.inner_text("#end-title") == "You have left the study"
    assert not page.locator("#completion").is_visible()
    database = open_existing(None, study.sqlite_path, study.fingerprint)
    with database.read() as connection:
        assert connection.execute(sa.select(answers).join(participants).filter_by(external_id="leaver")).all() == []
    database.close()


def test_without_an_id_a_reload_still_finds_the_person(page, server):
    page.goto(server.address)
    page.check("#agree")
    page.click("#start")
    page.wait_for_selector("#instructions:not([hidden])")
    assert re.search(r"\?participant=visitor-[0-9a-f]{16}$", page.url)
    page.reload()
    page.wait_for_selector("#instructions:not([hidden])")  # consent is not asked again
    assert page.context.cookies() == []


def test_a_server_that_is_away_for_a_while(browser, study, photos, tmp_path):
    other = make_study(tmp_path, photos, viewing_seconds=(0.2,))
    page = browser.new_page(**DESKTOP)
    with running(command(other.path)) as first:
        port = str(first.port)
        begin(page, first, "patient")
        page.wait_for_selector(".choice:enabled")
        first.process.kill()
        first.process.wait()
        page.keyboard.press("2")
        page.wait_for_selector("#notice:not([hidden])")
        assert "connection was lost" in page.inner_text("#notice")
    with running(command(other.path, "--port", port)):
        page.wait_for_selector("#break:not([hidden])")  # the practice is over: the answer arrived
        assert not page.locator("#notice").is_visible()
    page.close()
    database = open_existing(None, other.sqlite_path, other.fingerprint)
    with database.read() as connection:
        assert [row.chose_first for row in connection.execute(sa.select(answers))] == [False]
    database.close()


def test_the_redirect_follows_by_itself(browser, photos, tmp_path):
    plain = {"num_practice_trials": 0, "num_attention_checks": 0, "trials_per_subject": 1}
    study = make_study(tmp_path, photos, completion_url="http://recruiter.example/done?cc={code}", **plain)
    with running(command(study.path)) as server:
        page = browser.new_page(**DESKTOP)
        page.route("http://recruiter.example/**", lambda route: route.fulfill(body="thanks"))
        begin(page, server, "redirected")
        page.wait_for_selector(".choice:enabled")
        page.keyboard.press("1")
        page.wait_for_selector("#completion:not([hidden])")
        assert "10 seconds" in page.inner_text("#countdown")
        page.wait_for_url(f"**/done?cc={study.config.completion_code}")
        page.close()


@pytest.mark.parametrize("size", [(320, 568), (390, 780), (740, 360), (1280, 720), (2560, 1300)])
def test_every_image_fits_every_screen_without_scrolling(browser, server, size):
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    page.add_init_script(WATCH)
    begin(page, server, f"screen-{size[0]}")
    page.wait_for_selector(".choice:enabled")
    (exposure,) = page.evaluate("exposures")
    assert not exposure["scrolled"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.close()


def test_people_with_low_vision_can_read_it(page, server):
    page.goto(f"{server.address}?participant=low-vision")
    page.wait_for_selector("#consent:not([hidden])")
    ground = _luminance(page, "body", "backgroundColor")
    enhanced = 7.0  # WCAG level AAA
    assert _contrast(_luminance(page, "#consent-text p", "color"), ground) >= enhanced
    assert _contrast(_luminance(page, "#start", "color"), _luminance(page, "#start", "backgroundColor")) >= READABLE
    page.check("#agree")
    assert _contrast(_luminance(page, "#start", "color"), _luminance(page, "#start", "backgroundColor")) >= enhanced
    page.keyboard.press("Tab")
    assert page.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 3
    before = page.locator("#consent-text p").first.evaluate("p => parseFloat(getComputedStyle(p).fontSize)")
    page.evaluate("document.documentElement.style.fontSize = '225%'")  # twice as large
    after = page.locator("#consent-text p").first.evaluate("p => parseFloat(getComputedStyle(p).fontSize)")
    assert after == pytest.approx(2 * before)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert before >= 18
    moving = "e => getComputedStyle(e).transitionDuration + getComputedStyle(e).animationName"
    assert set(page.eval_on_selector_all("body *", f"all => all.map({moving})")) == {"0snone"}


def test_a_screen_reader_is_told_what_to_do(page, server):
    begin(page, server, "reader")
    assert page.locator("#say").get_attribute("role") == "status"
    page.wait_for_selector(".choice:enabled")
    assert page.inner_text("#say") == "Image 1 or image 2?"
    assert page.locator(".choice").first.inner_text() == "1"
    assert page.evaluate("document.documentElement.lang") == "en"


def test_the_administrators_page_is_live_and_needs_the_secret(browser, page, server):
    page.goto(f"{server.address}admin")
    page.fill("#secret", "wrong")
    page.click("#ask button")
    page.wait_for_function("() => document.querySelector('#state').textContent.includes('wrong')")
    assert not page.locator("#content").is_visible()
    page.goto("about:blank")
    page.goto(f"{server.address}admin#{server.secret}")
    page.wait_for_selector("#content:not([hidden])")
    count = page.locator("#people tr").count()
    other = browser.new_page()
    begin(other, server, "newcomer")
    page.wait_for_function(f"() => document.querySelectorAll('#people tr').length === {count + 1}")
    other.close()
    assert "newcomer" in page.locator("#people tr").first.inner_text()


def test_a_full_study_says_so(browser, photos, tmp_path):
    study = make_study(tmp_path, photos, subjects_per_model=1)
    with running(command(study.path)) as server:
        page = browser.new_page(**DESKTOP)
        for number in range(3):
            page.goto(f"{server.address}?participant=p{number}")
            page.check("#agree")
            page.click("#start")
            page.wait_for_selector("#instructions:not([hidden]), #end:not([hidden])")
        assert page.inner_text("#end-title") == "No place is free"
        page.close()
