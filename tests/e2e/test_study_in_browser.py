"""A study's pages in a real browser: what people see, hear, lose and may do, and the administrator's page."""

import re
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, Page

from pipelines.study.database import answers, open_existing, participants
from tests.e2e.browser import DESKTOP, READABLE, WATCH, begin, contrast, luminance
from tests.study_subjects import command, make_study, running

pytestmark = pytest.mark.quiet


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
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
    ground = luminance(page, "body", "backgroundColor")
    enhanced = 7.0  # WCAG level AAA
    assert contrast(luminance(page, "#consent-text p", "color"), ground) >= enhanced
    assert contrast(luminance(page, "#start", "color"), luminance(page, "#start", "backgroundColor")) >= READABLE
    page.check("#agree")
    assert contrast(luminance(page, "#start", "color"), luminance(page, "#start", "backgroundColor")) >= enhanced
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
    named = [page.get_by_role("button", name=f"Image {number}", exact=True) for number in (1, 2)]
    assert [button.inner_text() for button in named] == ["1", "2"], "while the images, which had names, are hidden"
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


def test_the_consent_says_how_long_it_takes_and_an_unknown_address_is_a_page(page, server, study):
    page.goto(f"{server.address}?participant=planner")
    page.wait_for_selector("#consent:not([hidden])")
    assert study.config.minutes_per_subject == 1
    assert "Taking part takes about one minute." in page.inner_text("#consent-text")
    for path in ("resluts", "admin/x"):
        response = page.goto(server.address + path)
        assert response is not None
        assert (response.status, response.headers["content-type"]) == (404, "text/html; charset=utf-8")
        assert page.inner_text("h1") == "There is no page at this address"
        assert luminance(page, "body", "backgroundColor") < 1, "the style sheet is found from every folder"


@pytest.mark.parametrize("width", [390, 1280])
def test_the_administrators_tables_are_read_by_lines_at_any_width(browser, server, width):
    page = browser.new_page(viewport={"width": width, "height": 780})
    begin(page, server, f"6{width}c0ffee1234567890ab")
    page.goto(f"{server.address}admin#{server.secret}")
    page.wait_for_selector("#content:not([hidden])")
    lines = "e => e.getBoundingClientRect().height / parseFloat(getComputedStyle(e).lineHeight)"
    heights = page.eval_on_selector_all("tr", f"all => all.map(e => [e.innerText, {lines.removeprefix('e => ')}])")
    assert [text for text, height in heights if height > 4] == [], "not broken letter by letter"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "tables scroll in themselves"
    page.close()


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
