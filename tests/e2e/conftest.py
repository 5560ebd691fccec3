"""The browser of this machine, and a study that is served to it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from pipelines.study.study_folder import Study
from tests.e2e.browser import ARGUMENTS
from tests.skips import find_browser
from tests.study_subjects import Server, command, make_study, running


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the browser."""
    path = find_browser()
    if path is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium, or name one in CHROMIUM")
    return path


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """Headless Chromium of this machine."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Study:
    """A study with many places; one pair of practice, three that count, a check."""
    changes: dict[str, Any] = {"trials_per_subject": 3, "subjects_per_model": 20, "viewing_seconds": (0.2,)}
    url = "https://recruiter.example/done?cc={code}&who={participant}"
    folder = tmp_path_factory.mktemp("browser")
    return make_study(folder, photos, completion_url=url, contact="study@lab.example", **changes)


@pytest.fixture(scope="module")
def server(study: Study) -> Iterator[Server]:
    """A server of the study."""
    with running(command(study.path)) as started:
        yield started
