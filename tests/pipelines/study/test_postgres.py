"""The same study on a real PostgreSQL: concurrent places and answers; skipped where it is not installed."""

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from pipelines.study.database import answers, open_existing, participants
from pipelines.study.results import write_results
from tests.processes import wait_for
from tests.skips import find_postgres
from tests.study_subjects import Subject, command, make_study, running


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own on loopback, ended by its own id; it refuses to run as root, so it runs as postgres there."""
    folder = find_postgres()
    if folder is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    user = "postgres" if os.geteuid() == 0 else None
    data = tmp_path_factory.mktemp("postgres")
    closed = [folder for folder in data.parents if Path(tempfile.gettempdir()) in folder.parents]
    for parent in closed:  # pytest's folders are closed to other users; pytest-xdist's are one level deeper
        parent.chmod(0o755)
    if user is not None:
        shutil.chown(data, user)
    data.chmod(0o700)
    subprocess.run(
        [folder / "initdb", "-D", data, "-U", "study", "--auth=trust", "--no-sync"],
        user=user, cwd="/", check=True, capture_output=True,
    )  # fmt: skip
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["-c", f"port={port}", "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={data}"]
    log = (data.parent / f"{data.name}.log").open("wb")
    process = subprocess.Popen([folder / "postgres", "-D", data, *options], user=user, cwd="/", stdout=log, stderr=log)
    ready = [folder / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
    try:
        wait_for(lambda: subprocess.run(ready, capture_output=True).returncode == 0, lambda: process.poll() is None)
        yield f"postgresql://study@127.0.0.1:{port}/postgres"
    finally:
        process.terminate()
        process.wait()
        log.close()


def test_a_whole_study_with_people_at_once(postgres, photos, tmp_path):
    study = make_study(tmp_path, photos)
    ends = {}

    def visit(number: int, address: str) -> None:
        subject = Subject(address, f"p{number}")
        subject.begin()
        ends[number] = subject.finish(lambda shown: ("first", "second")[shown["position"] % 2], with_images=True)

    with running(command(study.path, "--database", postgres)) as server:
        threads = [threading.Thread(target=visit, args=(number, server.address)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        late = Subject(server.address, "late")
        late.enter()
        status, answer = late.ask("POST", "api/consent", {})
        children = psutil.Process(server.process.pid).net_connections()
    assert (status, answer["code"]) == (403, "full")
    assert any(connection.raddr and str(connection.raddr.port) in postgres for connection in children)
    assert {end["state"] for end in ends.values()} == {"done"}
    assert not study.sqlite_path.exists()
    database = open_existing(postgres, study.sqlite_path, study.fingerprint)
    with database.read() as connection:
        assert Counter(connection.scalars(sa.select(participants.c.slot).where(participants.c.slot.is_not(None)))) == (
            Counter(range(8))
        )
        assert connection.scalar(sa.select(sa.func.count()).select_from(answers)) == 8 * study.config.num_positions
    database.close()
    results = write_results([str(study.path)], [postgres], num_replicates=200)
    assert results["tasks"][0]["num_kept"] > 0


def test_an_answer_sent_twenty_times_at_once_is_stored_once(postgres, photos, tmp_path):
    study = make_study(tmp_path, photos)
    name = "another"  # a database holds one study
    engine = sa.create_engine(postgres.replace("postgresql", "postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    url = postgres.replace("/postgres", f"/{name}")
    with running(command(study.path, "--database", url)) as server:
        subject = Subject(server.address, "anna")
        subject.begin()
        token = subject.next()["token"]
        statuses = []

        def send(choice: str) -> None:
            copy = Subject(server.address, "anna")
            copy.session = subject.session
            statuses.append(copy.answer_when_allowed(token, choice)[0])

        threads = [threading.Thread(target=send, args=(("first", "second")[n % 2],)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(statuses) == [200, *[409] * 19]


def test_a_server_that_is_not_there_is_one_clear_message(photos, tmp_path):
    study = make_study(tmp_path, photos)
    url = "postgresql://study:hidden@127.0.0.1:1/none"
    done = subprocess.run(command(study.path, "--database", url), capture_output=True, text=True)
    assert done.returncode == 1
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("sr3 study serve:")]
    assert "127.0.0.1:1/none" in message
    assert "hidden" not in message
