"""Leases on a disk and on a real S3 server, with real processes that hold them and die."""

import os
import time

import pytest

from pipelines.storage import lease as lease_module
from pipelines.storage.journal import NOTHING, Journal
from pipelines.storage.lease import hold, is_held
from sr3core.errors import StorageError
from tests.pipelines.storage.rivals import start
from tests.processes import wait_for

pytestmark = pytest.mark.quiet  # leases expire by the clock

HOLDER = """
# argv: lease, seconds. Holds it until it is killed.
import sys, time
from pipelines.storage.lease import hold
with hold(sys.argv[1], "test", float(sys.argv[2])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lease_keeps_others_out_and_says_who_has_it(place):
    with hold(place, "retraining 3", 60) as held:
        held.check()
        with pytest.raises(
            StorageError,
            match=rf"process {os.getpid()} on .*retraining 3, since 20.* run the same command again in \d+ s",
        ):
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
    identity = lease_module.process_identity()
    assert identity is not None
    boot, namespace, pid, started = identity
    content = {"until": time.time() + 600, "owner": "someone", "purpose": "x", "since": 0.0}
    Journal(str(tmp_path)).append(NOTHING, {**content, "process": [boot, namespace, pid, started + 1]})
    with hold(str(tmp_path), "next", 60):
        assert Journal(str(tmp_path)).last().content["purpose"] == "next"


def test_a_holder_that_could_not_renew_stops_before_it_writes(tmp_path):
    place = str(tmp_path / "lease")
    with hold(place, "stalled", 0.5) as held:
        os.rename(place, tmp_path / "gone")  # its storage goes away
        (tmp_path / "lease").write_text("no folder")
        with pytest.raises(StorageError, match="lost the lease: it could not be renewed in time"):
            wait_for(lambda: held.check())


def test_a_holder_whose_lease_was_taken_is_told(tmp_path):
    place, journal = str(tmp_path), Journal(str(tmp_path))
    with hold(place, "slow", 1.0) as held:
        last = journal.last()
        while journal.append(last, {"owner": "another", "purpose": "its work", "since": 0.0, "until": 9e9}) is None:
            last = journal.last()
        with pytest.raises(StorageError, match=r"lost the lease: another \(its work"):
            wait_for(lambda: held.check())
    assert journal.last().content["owner"] == "another", "what is another's is not given back"
