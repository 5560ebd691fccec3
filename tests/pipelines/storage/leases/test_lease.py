"""Leases on a disk and on a real S3 server, with real processes that hold them and die."""

import os
import time

import pytest

from pipelines.storage.leases import lease as lease_module
from pipelines.storage.leases.journal import NOTHING, Journal
from pipelines.storage.leases.lease import LeaseLostError, check_all_held, fences_here, hold, is_held
from sr3core.errors import StorageError
from tests.pipelines.storage.leases.rivals import start
from tests.processes import wait_for

pytestmark = pytest.mark.quiet  # leases expire by the clock

HOLDER = """
# argv: lease, seconds. Holds it until it is killed.
import sys, time
from pipelines.storage.leases.lease import hold
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


def take_over(place, seconds=60):
    """What a process does that considers the holder dead; its owner is `another`."""
    journal, until = Journal(place), time.time() + seconds
    content = {"owner": "another", "purpose": "its own", "since": 0.0, "until": until, "token": "another's"}
    while journal.append(journal.last(), content) is None:
        pass


def test_those_who_write_for_a_holder_stop_when_another_takes_its_lease(place):
    assert fences_here() == ()
    with hold(place, "training", 60):
        (fence,) = fences_here()
        fence.check()
        take_over(place)
        with pytest.raises(LeaseLostError, match=r"lost the lease: another \(its own, .* took it; run the same"):
            fence.check()


def test_those_who_write_for_a_holder_stop_when_it_has_ended(place):
    with hold(place, "training", 60):
        (fence,) = fences_here()
    with pytest.raises(LeaseLostError, match="its holder has ended"):
        fence.check()


def test_a_renewed_lease_is_the_same_to_those_who_write_for_its_holder(tmp_path):
    with hold(str(tmp_path), "long work", 0.4):
        (fence,) = fences_here()
        wait_for(lambda: Journal(str(tmp_path)).last().number > 3)
        fence.check()


def test_a_storage_that_does_not_answer_is_no_reason_to_stop(tmp_path):
    with hold(str(tmp_path / "lease"), "training", 60):
        (fence,) = fences_here()
        entry = max((tmp_path / "lease").iterdir())
        content = entry.read_text()
        entry.write_text("cut")
        fence.check()
        entry.write_text(content)


def test_every_lease_of_the_callers_is_looked_at(tmp_path):
    with hold(str(tmp_path / "outer"), "retraining", 0.4), hold(str(tmp_path / "inner"), "training", 60):
        check_all_held()
        assert [fence.uri for fence in fences_here()] == [str(tmp_path / "outer"), str(tmp_path / "inner")]
        take_over(str(tmp_path / "outer"))

        def noticed():
            try:
                check_all_held()
            except LeaseLostError as error:
                return str(error)

        assert "outer: this process has lost the lease: another" in str(wait_for(noticed))
