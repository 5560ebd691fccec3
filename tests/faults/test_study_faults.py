"""A study's server is killed, its disk full or read-only: no acknowledged answer is lost, none is doubled."""

import errno
import os
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from pipelines.study.database import answers, open_existing, participants
from pipelines.study.study_folder import Study
from tests.processes import wait_for
from tests.study_subjects import Subject, command, make_study, running

UNSHARE = ("unshare", "-m") if os.geteuid() == 0 else ("unshare", "-rm")
"""A mount namespace of the server's own: what is mounted in it ends with it and is seen by nobody else."""


def in_namespace(script: str, arguments: Sequence[str]) -> list[str]:
    """Run a script in a new mount namespace, and then the arguments in the same process."""
    return [*UNSHARE, "sh", "-c", f'set -e; {script}; exec "$@"', "sh", *arguments]


@pytest.fixture(scope="module")
def namespaces() -> None:
    """Skips where this user may not mount anything."""
    script = "mount -t tmpfs tmpfs /mnt"
    if (
        shutil.which("unshare") is None
        or subprocess.run(in_namespace(script, ["true"]), capture_output=True).returncode
    ):
        pytest.skip("mount namespaces are not permitted here: no real full or read-only file system can be made")


class PatientSubject(Subject):
    """Tries again while the server is away, as the page does, and remembers what was acknowledged."""

    def __init__(self, address: str, name: str) -> None:
        super().__init__(address, name)
        self.acknowledged: dict[int, str] = {}

    def ask(self, *request: Any, **options: Any) -> Any:
        """One request, until somebody answers."""
        while True:
            try:
                return super().ask(*request, **options)
            except ConnectionError:
                time.sleep(0.05)  # between two tries; nothing is asserted of the time

    def visit(self) -> None:
        """From consent to the end, answering left and right in turn."""
        self.begin()
        while (shown := self.next())["state"] == "active":
            choice = ("first", "second")[shown["position"] % 2]
            status, answer = self.answer_when_allowed(shown["token"], choice)
            assert status == 200 or answer["code"] == "answered", answer  # stored before the kill, not acknowledged
            if status == 200:
                self.acknowledged[shown["position"]] = choice


def test_a_server_killed_three_times_loses_and_doubles_nothing(photos, tmp_path):
    study = make_study(tmp_path, photos, trials_per_subject=6, subjects_per_model=6)
    with running(command(study.path)) as first:
        port, address = str(first.port), first.address
        subjects = [PatientSubject(address, f"p{number}") for number in range(12)]
        threads = [threading.Thread(target=subject.visit) for subject in subjects]
        for thread in threads:
            thread.start()
        wait_for(lambda: sum(len(subject.acknowledged) for subject in subjects) >= 15)
        first.process.kill()  # in the middle of requests of twelve people
        first.process.wait()
    for enough in (35, 60):
        with running(command(study.path, "--port", port)):
            wait_for(lambda enough=enough: sum(len(subject.acknowledged) for subject in subjects) >= enough)
    assert any(thread.is_alive() for thread in threads)  # the kills came while people were answering
    with running(command(study.path, "--port", port)):
        for thread in threads:
            thread.join()
    database = open_existing(None, study.sqlite_path, study.fingerprint)
    with database.read() as connection:
        rows = connection.execute(sa.select(participants.c.external_id, answers).join(answers)).all()
        people = connection.execute(sa.select(participants)).all()
        assert connection.scalar(sa.text("PRAGMA integrity_check")) == "ok"
    database.close()
    assert Counter(person.slot for person in people) == Counter(range(12))
    assert {person.state for person in people} == {"done"}
    stored = {(row.external_id, row.position): "first" if row.chose_first else "second" for row in rows}
    assert len(stored) == len(rows) == 12 * study.config.num_positions
    for subject in subjects:
        for position, choice in subject.acknowledged.items():
            assert stored[subject.name, position] == choice


def fill(path: Path) -> None:
    """Write a file until the file system is full."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(512))
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 - that it is raised ends the loop


def served_from_tmpfs(study: Study, folder: Path, size: str) -> list[str]:
    """Serve a copy of a study on a small file system of its own."""
    folder.mkdir()
    script = f"mount -t tmpfs -o size={size} tmpfs {folder}; cp -r {study.path}/. {folder}"
    return in_namespace(script, command(folder))


def test_a_full_disk_refuses_answers_and_goes_on_when_there_is_room(photos, tmp_path, namespaces):
    study = make_study(tmp_path, photos)
    with running(served_from_tmpfs(study, tmp_path / "small", "4m")) as server:
        inside = Path(f"/proc/{server.process.pid}/root{tmp_path}/small")  # the server's view of its folder
        assert (inside / "study.sqlite").is_file()
        subject = Subject(server.address, "anna")
        subject.begin()
        first = subject.next()
        assert subject.answer_when_allowed(first["token"])[0] == 200
        shown = subject.next()
        fill(inside / "filler")
        # The log of writes may have a little room left in its last page: ask until the disk says no.
        acknowledged = 1
        while (result := subject.answer_when_allowed(shown["token"]))[0] == 200:
            acknowledged += 1
            status, shown = subject.ask("POST", "api/next", {})
            if status != 200:
                result = status, shown
                break
        status, refusal = result
        assert (status, refusal["code"]) == (503, "storage")
        assert "could not be stored" in refusal["text"]
        right = {"Authorization": f"Bearer {server.secret}"}
        assert subject.ask("GET", "api/progress", None, right)[1]["num_answers"] == acknowledged
        (inside / "filler").unlink()
        end = subject.finish(lambda _: "second")
        assert end["state"] == "done"
        assert subject.ask("GET", "api/progress", None, right)[1]["num_answers"] == study.config.num_positions
        for file in inside.glob("study.sqlite*"):  # SQLite would follow /proc's link out of the namespace
            shutil.copy(file, tmp_path)
    database = open_existing(None, tmp_path / "study.sqlite", study.fingerprint)
    with database.read() as connection:
        assert connection.scalar(sa.text("PRAGMA integrity_check")) == "ok"
        assert connection.scalar(sa.select(sa.func.count()).select_from(answers)) == study.config.num_positions
    database.close()


def test_a_full_disk_at_the_start_is_one_clear_message(photos, tmp_path, namespaces):
    study = make_study(tmp_path, photos)
    folder = tmp_path / "small"
    arguments = served_from_tmpfs(study, folder, "4m")
    arguments[4] = arguments[4].replace("; exec", f"; cat /dev/zero > {folder}/filler || true; exec")
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 1
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("sr3 study serve:")]
    assert "study.sqlite: " in message
    assert "Traceback" not in done.stderr


def test_a_read_only_database_is_one_clear_message(photos, tmp_path, namespaces):
    study = make_study(tmp_path, photos)
    with running(command(study.path)) as server:
        Subject(server.address, "anna").begin()
    before = study.sqlite_path.read_bytes()
    script = f"mount --bind {study.path} {study.path}; mount -o remount,bind,ro {study.path}"
    done = subprocess.run(in_namespace(script, command(study.path)), capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("sr3 study serve:")]
    assert "study.sqlite" in message
    assert "readonly" in message or "unable to open" in message
    assert study.sqlite_path.read_bytes() == before


def test_a_read_only_file_is_one_clear_message(photos, tmp_path):
    """The file's own mode; root has to give up the right to write regardless of it."""
    study = make_study(tmp_path, photos)
    study.sqlite_path.touch(mode=0o444)
    drop = ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override") if os.geteuid() == 0 else ()
    if drop and shutil.which(drop[0]) is None:
        pytest.skip("no setpriv on this machine, and root is bound by no file's mode")
    done = subprocess.run([*drop, *command(study.path)], capture_output=True, text=True)
    assert done.returncode == 1
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("sr3 study serve:")]
    assert "attempt to write a readonly database" in message


def test_a_damaged_database_is_one_clear_message(photos, tmp_path):
    study = make_study(tmp_path, photos)
    study.sqlite_path.write_bytes(b"this is no database" * 1000)
    done = subprocess.run(command(study.path), capture_output=True, text=True)
    assert done.returncode == 1
    assert "study.sqlite: file is not a database" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_one_clear_message(photos, tmp_path):
    study = make_study(tmp_path, photos)
    with running(command(study.path)) as server:
        done = subprocess.run(command(study.path, "--port", str(server.port)), capture_output=True, text=True)
    assert done.returncode == 1
    where = f"127.0.0.1:{server.port}"
    assert f"port: cannot listen on {where}: Address already in use; choose another --port" in done.stderr
