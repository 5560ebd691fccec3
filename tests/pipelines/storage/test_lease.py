"""Journals and leases on a disk and on a real S3 server, with real processes that race, and die, for them."""

import json
import os
import subprocess
import sys
import time

import pytest

from pipelines.storage import lease as lease_module
from pipelines.storage import uris
from pipelines.storage.journal import NOTHING, Journal
from pipelines.storage.lease import hold, is_held
from sr3core.errors import StorageError
from tests.commands import ROOT
from tests.processes import wait_for

pytestmark = pytest.mark.quiet  # leases expire by the clock

RACER = """
# argv: journal, name. Appends 12 entries, each to what it last saw, and counts how often it was first.
import sys
from pipelines.storage.journal import Journal
journal, first = Journal(sys.argv[1]), 0
sys.stdin.readline()
while first < 12:
    entry = journal.append(journal.last(), {"by": sys.argv[2], "its": first})
    first += entry is not None
"""

HOLDER = """
# argv: lease, seconds. Holds it until it is killed.
import sys, time
from pipelines.storage.lease import hold
with hold(sys.argv[1], "test", float(sys.argv[2])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def bucket(s3_server):
    s3_server.create_bucket("leases")
    return f"s3://leases/x?endpoint_override={s3_server.endpoint}"


@pytest.fixture(params=["disk", "bucket"])
def place(request, tmp_path):
    """A fresh folder or prefix."""
    if request.param == "disk":
        return str(tmp_path)
    return uris.join(request.getfixturevalue("bucket"), tmp_path.name)


def start(code: str, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def test_of_several_that_create_a_file_one_is_first(place):
    uri = uris.join(place, "file")
    assert uris.create(uri, b"one")
    assert not uris.create(uri, b"two")
    assert uris.read_bytes(uri) == b"one"
    assert [name for name, _ in uris.list_files(place)] == ["file"]


def test_processes_that_race_for_a_journal_write_every_entry_once(place):
    journal = Journal(place)
    assert journal.last() == NOTHING
    racers = [start(RACER, place, name) for name in "abc"]
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.close()
    assert [racer.wait(120) for racer in racers] == [0, 0, 0]
    entries = list(journal.entries())
    assert [entry.number for entry in entries] == list(range(1, 37))
    for name in "abc":
        assert [e.content["its"] for e in entries if e.content["by"] == name] == list(range(12))
    assert journal.last() == entries[-1]


def test_who_has_seen_only_what_is_forgotten_is_not_first(place):
    journal = Journal(place)
    seen = [NOTHING]
    for number in range(6):
        seen.append(journal.append(seen[-1], {"number": number}))
    journal.forget(before=5)
    for old in seen[:4]:
        assert journal.append(old, {"number": "late"}) is None
    assert [entry.number for entry in journal.entries()] == [5, 6]
    assert journal.append(seen[-1], {"number": 7}).number == 7
    journal.forget(before=100)
    assert [entry.number for entry in journal.entries()] == [7]


def test_a_lease_keeps_others_out_and_says_who_has_it(place):
    with hold(place, "retraining 3", 60) as held:
        held.check()
        with pytest.raises(StorageError, match=rf"process {os.getpid()} on .*retraining 3, since 20.* go on in \d+ s"):
            hold(place, "retraining 4", 60).__enter__()
    with hold(place, "retraining 4", 60):
        pass
    assert not is_held(Journal(place).last())


def test_a_lease_is_renewed_and_leaves_few_files(tmp_path):
    place, journal = str(tmp_path), Journal(str(tmp_path))
    with hold(place, "long work", 0.4) as held:
        wait_for(lambda: journal.last().number > 20)
        held.check()
        assert is_held(journal.last())
    assert len(list(journal.entries())) <= 18


def test_the_lease_of_a_killed_process_of_this_machine_is_free_at_once(place):
    with start(HOLDER, place, "600") as holder:
        assert holder.stdout.readline() == "held\n"
        assert is_held(Journal(place).last())
        holder.kill()
    with hold(place, "next", 60) as held:
        held.check()


def test_the_lease_of_a_killed_process_elsewhere_expires(place, monkeypatch):
    with start(HOLDER, place, "4") as holder:
        assert holder.stdout.readline() == "held\n"
        holder.kill()
    monkeypatch.setattr(lease_module, "process_identity", lambda: ["another machine's boot", "pid:[1]", 1, 1])
    entry = Journal(place).last()
    assert is_held(entry), "nobody can see from another machine that it is dead"
    with pytest.raises(StorageError, match=f"process {holder.pid} on"):
        hold(place, "next", 60).__enter__()
    wait_for(lambda: not is_held(entry))
    with hold(place, "next", 60) as held:
        held.check()


def test_a_process_number_that_was_given_again_does_not_hold_the_lease(tmp_path):
    boot, namespace, pid, started = lease_module.process_identity()
    content = {"until": time.time() + 600, "owner": "someone", "purpose": "x", "since": 0.0}
    Journal(str(tmp_path)).append(NOTHING, {**content, "process": [boot, namespace, pid, started + 1]})
    with hold(str(tmp_path), "next", 60):
        assert Journal(str(tmp_path)).last().content["purpose"] == "next"


def test_who_could_not_renew_stops_before_it_writes_anything(tmp_path):
    place = str(tmp_path / "lease")
    with hold(place, "stalled", 0.5) as held:
        os.rename(place, tmp_path / "gone")  # its storage goes away
        (tmp_path / "lease").write_text("no folder")
        with pytest.raises(StorageError, match="lost the lease: it could not be renewed in time"):
            wait_for(lambda: held.check())


def test_who_was_taken_for_dead_learns_it(tmp_path):
    place, journal = str(tmp_path), Journal(str(tmp_path))
    with hold(place, "slow", 1.0) as held:
        last = journal.last()
        while journal.append(last, {"owner": "another", "purpose": "its work", "since": 0.0, "until": 9e9}) is None:
            last = journal.last()
        with pytest.raises(StorageError, match=r"lost the lease: another \(its work"):
            wait_for(lambda: held.check())
    assert journal.last().content["owner"] == "another", "what is another's is not given back"


def test_a_damaged_entry_is_named(tmp_path):
    journal = Journal(str(tmp_path))
    entry = journal.append(NOTHING, {"a": 1})
    journal.append(entry, {"a": 2})
    (tmp_path / "00000002.json").write_text(json.dumps({"a": 2})[:-1])
    with pytest.raises(StorageError, match=r"00000002.json is damaged: .*delete it to return to the entry before"):
        journal.last()
