"""The real server in its own process: headers, limits, proxies, a crowd; what HTTP adds to test_visits.py."""

import itertools
import json
import re
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

from pipelines.study.database import answers, open_existing, participants, presentations
from pipelines.study.study_folder import Study
from tests.study_subjects import Server, Subject, command, make_study, running

NUM_SUBJECTS = 200


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Study:
    """Eight places."""
    return make_study(tmp_path_factory.mktemp("server"), photos)


@pytest.fixture(scope="module")
def server(study: Study) -> Iterator[Server]:
    """A server of it."""
    with running(command(study.path)) as started:
        yield started


def headers_of(server: Server, path: str) -> dict[str, str]:
    with urllib.request.urlopen(server.address + path) as response:
        return {name.lower(): value for name, value in response.headers.items()}


def test_it_listens_on_loopback_alone(server):
    assert server.address.startswith("http://127.0.0.1:")
    listening = [c for c in psutil.Process(server.process.pid).net_connections() if c.status == "LISTEN"]
    assert [connection.laddr.ip for connection in listening] == ["127.0.0.1"]


@pytest.mark.parametrize("path", ["", "admin", "assets/study.js", "assets/study.css", "health"])
def test_nothing_is_cached_and_pages_load_nothing_from_elsewhere(server, path):
    headers = headers_of(server, path)
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "set-cookie" not in headers


def test_images_come_without_anything_that_names_them(server):
    subject = Subject(server.address, "headers")
    subject.begin()
    headers = headers_of(server, subject.next()["images"]["first"])
    assert headers["cache-control"] == "no-store"
    assert headers["content-type"] == "image/png"
    assert not {"etag", "last-modified", "content-disposition"} & set(headers)


@pytest.mark.parametrize(
    "path",
    ["study.json", "secrets.json", "assets/../../study.json", "assets/%2e%2e/server.py", "image/x/first", "docs"],
)
def test_other_files_are_not_served(server, path):
    assert Subject(server.address, "x").ask("GET", path)[0] == 404


def test_a_program_that_asks_for_an_unknown_address_is_answered_by_json(server):
    status, content = Subject(server.address, "x").ask("GET", "nowhere")
    assert (status, content["code"]) == (404, "address")


def test_what_is_malformed_is_refused(server):
    subject = Subject(server.address, "malformed")
    subject.begin()
    token = subject.next()["token"]
    bad: list[dict[str, Any]] = [
        {"choice": "model"},
        {"exposure_seconds": -1},
        {"exposure_seconds": "NaN"},
        {"focus_lost_viewing": 1.5},
        {"response_seconds": None},
    ]
    for changes in bad:
        assert subject.ask("POST", "api/answer", {"token": token, "choice": "first"} | changes)[0] == 422
    assert subject.ask("POST", "api/answer", {"token": "x" * 20_000, "choice": "first"})[0] == 413
    assert subject.ask("POST", "api/next", {}, {"Authorization": "Bearer nonsense"})[0] == 401
    for name in ("a" * 129, "<script>", "a b"):
        status, answer = Subject(server.address, name).ask("POST", "api/enter", {"parameters": {"workerId": name}})
        assert (status, answer["code"]) == (400, "participant")


def test_a_visitor_without_an_id_gets_one_that_finds_them_again(server):
    subject = Subject(server.address, "")
    status, first = subject.ask("POST", "api/enter", {"parameters": {}})
    assert status == 200
    assert first["known"] is False
    status, again = subject.ask("POST", "api/enter", {"parameters": {"participant": first["participant"]}})
    assert again["known"] is True
    assert again["session"] == first["session"]


def test_the_first_declared_parameter_counts(server):
    given = {"workerId": "w", "PROLIFIC_PID": "p", "unknown": "u"}
    assert Subject(server.address, "").ask("POST", "api/enter", {"parameters": given})[1]["participant"] == "p"


def test_the_administrators_progress(study, server):
    subject = Subject(server.address, "admin")
    right = {"Authorization": f"Bearer {server.secret}"}
    status, found = subject.ask("GET", "api/progress", None, right)
    assert status == 200
    assert found["num_positions"] == study.config.num_positions
    statuses = [subject.ask("GET", "api/progress", None, {"Authorization": f"Bearer {n}"})[0] for n in range(8)]
    assert statuses[:5] == [401] * 5
    assert 429 in statuses[5:]
    assert subject.ask("GET", "api/progress", None, right)[0] == 200  # a guesser does not lock the owner out


def test_a_participant_who_asks_too_often_is_slowed(study):
    with running(command(study.path, "--requests-per-second", "0.5")) as server:  # a burst of five
        subject, other = Subject(server.address, "busy"), Subject(server.address, "calm")
        subject.enter()
        statuses = [subject.ask("POST", "api/next", {})[0] for _ in range(8)]
        assert statuses[:4] == [200] * 4
        assert 429 in statuses
        other.enter()


def test_an_address_that_asks_too_often_is_slowed(study):
    with running(command(study.path, "--requests-per-second-per-address", "0.5")) as server:
        statuses = [Subject(server.address, f"p{number}").ask("GET", "health")[0] for number in range(8)]
    assert statuses[:5] == [200] * 5
    assert 429 in statuses


@pytest.mark.parametrize("strips", [True, False])
def test_behind_a_proxy_with_a_path(study, strips):
    """A proxy may strip its path or pass it on; the pages contain the path in either case."""
    with running(command(study.path, "--root-path", "/lab/study")) as server:
        root = server.address.removesuffix("lab/study/") if strips else server.address
        status, page = Subject(root, "x").ask("GET", "")
        assert status == 200
        assert '<base href="/lab/study/">' in page.decode()
        assert Subject(root, "x").ask("GET", "assets/study.js")[0] == 200
        subject = Subject(root, "proxied")
        subject.begin()
        assert subject.ask("GET", subject.next()["images"]["second"])[0] == 200


def test_limits_are_by_the_address_that_a_trusted_proxy_tells(study):
    options = ("--requests-per-second-per-address", "0.5", "--forwarded-allow-ips", "127.0.0.1")
    with running(command(study.path, *options)) as server:
        subject = Subject(server.address, "x")
        for number in range(20):
            assert subject.ask("GET", "health", None, {"X-Forwarded-For": f"10.0.0.{number}"})[0] == 200
    with running(command(study.path, *options[:2], "--forwarded-allow-ips", "10.9.9.9")) as server:
        subject = Subject(server.address, "x")
        headers = [{"X-Forwarded-For": f"10.0.0.{number}"} for number in range(20)]
        assert 429 in [subject.ask("GET", "health", None, header)[0] for header in headers]


def test_no_network_address_is_stored(study, server):
    Subject(server.address, "private").begin()
    for file in study.path.glob("study.sqlite*"):
        assert b"127.0.0.1" not in file.read_bytes()
    database = open_existing(None, study.sqlite_path, study.fingerprint)
    with database.read() as connection:
        columns = {column["name"] for column in sa.inspect(connection).get_columns("participants")}
    database.close()
    assert columns == {"id", "external_id", "state", "slot", "valid", "entered_at", "last_seen_at", "finished_at"}


def test_200_subjects_at_once(photos, tmp_path):
    """All finish, every place is filled once, every answer that was acknowledged is stored once, balance holds."""
    study = make_study(tmp_path, photos, subjects_per_model=NUM_SUBJECTS // 2)
    acknowledged: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    start = threading.Barrier(NUM_SUBJECTS)

    def visit(number: int, address: str) -> None:
        subject = Subject(address, f"p{number:03d}")
        try:
            start.wait()
            subject.begin()
            sides = itertools.cycle(("first", "second"))
            acknowledged[subject.name] = subject.finish(lambda _: next(sides), with_images=True)
        except Exception as error:  # noqa: BLE001 - told below, in the main thread
            problems.append(f"{subject.name}: {error!r}")

    with running(command(study.path, "--requests-per-second-per-address", "100000")) as server:
        threads = [threading.Thread(target=visit, args=(number, server.address)) for number in range(NUM_SUBJECTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert problems == []
    assert {end["state"] for end in acknowledged.values()} == {"done"}
    database = open_existing(None, study.sqlite_path, study.fingerprint)
    with database.read() as connection:
        people = connection.execute(sa.select(participants)).all()
        rows = connection.execute(sa.select(answers)).all()
        shown = connection.scalar(sa.select(sa.func.count()).select_from(presentations))
    database.close()
    assert len(people) == NUM_SUBJECTS
    assert Counter(person.slot for person in people) == Counter(range(NUM_SUBJECTS))
    assert len(rows) == shown == NUM_SUBJECTS * study.config.num_positions
    assert Counter(row.position for row in rows) == dict.fromkeys(range(6), NUM_SUBJECTS)
    assert min(row.server_seconds for row in rows) >= 0.05
    slots = {person.id: study.plan.slots[person.slot] for person in people}
    trials = [(slots[row.participant].model, slots[row.participant].trials[row.position]) for row in rows]
    images = Counter((model, trial.image) for model, trial in trials if trial.kind == "trial")
    lefts = Counter((model, trial.image) for model, trial in trials if trial.kind == "trial" and trial.original_first)
    assert max(images.values()) - min(images.values()) <= 1
    assert all(abs(2 * lefts[key] - count) <= 1 for key, count in images.items())


def test_pages_name_no_other_host():
    folder = Path(__file__).parents[3] / "pipelines" / "study" / "pages"
    for file in folder.rglob("*.*"):
        assert not re.findall(r"https?://", file.read_text()), file


def test_the_health_check_tells_the_study(study, server):
    assert Subject(server.address, "x").ask("GET", "health")[1] == {"study": study.fingerprint}
    assert json.loads((study.path / "study.json").read_text())["fingerprint"] == study.fingerprint
