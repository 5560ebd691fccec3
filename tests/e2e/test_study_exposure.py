"""A whole study in a real browser: people at once by mouse, keys and touch; exposure measured frame by frame."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa
from playwright import async_api

from pipelines.study.database import answers, open_existing, participants
from pipelines.study.results import write_results
from tests.e2e.browser import ARGUMENTS, DESKTOP, PHONE, WATCH, begin
from tests.study_subjects import command, make_study, running

pytestmark = pytest.mark.quiet  # exposures are measured

WAITING = "() => document.querySelector('.choice:enabled') || !document.querySelector('#end').hidden \
|| !document.querySelector('#break').hidden"


def assert_exposed(exposures: list[dict[str, Any]], seconds: float, num_images: int) -> None:
    """Each was visible for the viewing time to within a frame, of whatever length the machine made frames."""
    for exposure in exposures:
        longest_frame = max(later - earlier for earlier, later in pairwise(exposure["frames"]))
        error = exposure["end"] - exposure["start"] - 1000 * seconds
        assert abs(error) <= longest_frame + 0.2  # stamps are rounded to 0.1 ms
        assert exposure["count"] == num_images
        assert exposure["whole"]  # loaded and decoded before the first frame
        assert not exposure["scrolled"]  # nobody has to scroll to see an image


Choose = Callable[[async_api.Page, int], Awaitable[None]]


async def by_mouse(page: async_api.Page, number: int) -> None:
    await page.locator(".choice").nth(number % 2).click()


async def by_touch(page: async_api.Page, number: int) -> None:
    await page.locator(".choice").nth(number % 2).tap()


async def by_key(page: async_api.Page, number: int) -> None:
    await page.keyboard.press(("1", "ArrowRight", "ArrowLeft", "2")[number % 4])


async def by_tab_and_space(page: async_api.Page, number: int) -> None:
    await page.locator(".choice").nth(number % 2).focus()
    await page.keyboard.press("Space")


async def visit(
    browser: async_api.Browser, address: str, name: str, options: dict[str, Any], choose: Choose, reload_at: int = -1
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
            return list(found)

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
