"""One command at a time in a folder, on a disk and on a real S3 server; real processes hold leases and die."""

import os
import re
import socket
import threading

import pytest

from pipelines.storage.buckets import s3_client
from pipelines.storage.leases import folder_lease, lease
from pipelines.storage.leases.folder_lease import LEASES, refuse_if_anything_runs, refuse_if_busy, working_in
from pipelines.storage.leases.journal import Journal
from pipelines.storage.leases.lease import is_held
from pipelines.storage.uris import join, list_files
from sr3core.errors import ConfigError, StorageError
from tests.pipelines.storage.leases.rivals import WORKER, at_work, start
from tests.processes import wait_for

pytestmark = pytest.mark.quiet  # leases expire by the clock


def test_a_second_command_is_told_at_once_who_is_at_work_and_a_killed_one_blocks_nobody(place):
    with at_work(place, "preparing") as holder:
        told = rf"in use by process {holder.pid} on {socket.gethostname()} \(preparing, since 20.*, for 0 min\); wait"
        with pytest.raises(StorageError, match=re.escape(place) + " is " + told):
            working_in(place, "preparing").__enter__()
        with pytest.raises(StorageError, match=told):
            refuse_if_busy(place, "preparing")
        with working_in(place, "training"), working_in(place, "searching", "16-64"):
            pass
        with pytest.raises(StorageError, match=told):
            refuse_if_anything_runs(place)
        holder.kill()
    refuse_if_anything_runs(place)
    with working_in(place, "preparing") as held:
        held.check()
    assert not list(list_files(place)), "nothing is left behind"


def test_the_steps_of_one_command_share_its_lease_and_other_threads_do_not(tmp_path):
    folder, refused = str(tmp_path / "run"), []
    (tmp_path / "link").symlink_to(tmp_path / "run")

    def rival():
        try:
            working_in(folder, "training").__enter__()
        except StorageError as error:
            refused.append(str(error))

    with working_in(folder, "training") as outer:
        with working_in(str(tmp_path / "link"), "training") as inner:
            assert inner is outer
        outer.check()
        thread = threading.Thread(target=rival)
        thread.start()
        thread.join()
    assert refused
    assert not is_held(Journal(join(folder, LEASES, "training")).last())


def test_waiting_ends_when_the_other_command_ends(place, monkeypatch, caplog):
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.05)
    with at_work(place, "upscaling") as holder:
        got = []

        def wait():
            with working_in(place, "upscaling", wait=True) as held:
                got.append(held)

        thread = threading.Thread(target=wait)
        thread.start()
        wait_for(lambda: f"waiting: process {holder.pid} on" in caplog.text)
        assert not got
        holder.stdin.close()
        thread.join()
        assert got


def elsewhere(monkeypatch):
    """Let this process appear to be on another machine, from which the holder cannot be looked up."""
    monkeypatch.setattr(lease, "process_identity", lambda: ["another machine's boot", "pid:[1]", 1, 1])
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.05)


def test_a_holder_elsewhere_is_given_until_its_next_renewal_to_prove_that_it_lives(place, monkeypatch):
    monkeypatch.setattr(folder_lease, "LEASE_SECONDS", 4.0)
    began, ended = threading.Event(), threading.Event()

    def live():
        with working_in(place, "training"):
            began.set()
            ended.wait()

    thread = threading.Thread(target=live)
    thread.start()
    began.wait()
    first = Journal(join(place, LEASES, "training")).last()
    elsewhere(monkeypatch)
    with pytest.raises(StorageError, match=f"in use by process {os.getpid()} on"):
        working_in(place, "training").__enter__()
    assert Journal(join(place, LEASES, "training")).last().number > first.number
    ended.set()
    thread.join()


def test_a_holder_that_was_killed_elsewhere_is_succeeded_without_a_word_from_the_user(place, monkeypatch):
    short = WORKER.replace(
        "with working_in", "import pipelines.storage.leases.folder_lease as f; f.LEASE_SECONDS = 3\nwith working_in"
    )
    with start(short, place, "training") as holder:
        assert holder.stdout.readline() == "at work\n"
        holder.kill()
    elsewhere(monkeypatch)
    with working_in(place, "training") as held:
        held.check()


def test_a_lease_that_could_not_be_renewed_for_a_while_is_lost_only_if_another_took_it(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lease, "LEASE_SECONDS", 0.4)
    leases, away = tmp_path / LEASES, tmp_path / "away"
    with working_in(str(tmp_path), "training") as held:
        leases.rename(away)
        leases.write_text("the storage does not answer")
        wait_for(lambda: _expired(held))
        held.check_not_taken()
        leases.unlink()
        away.rename(leases)
        wait_for(lambda: not _expired(held))
        journal = Journal(str(leases / "training"))
        other = {"owner": "another", "purpose": "training", "since": 0.0, "until": 9e9}
        while journal.append(journal.last(), other) is None:
            pass
        with pytest.raises(StorageError, match=r"lost the lease: another \(training"):
            wait_for(lambda: held.check_not_taken())


def _expired(held) -> bool:
    try:
        held.check()
    except StorageError:
        return True
    return False


def test_what_a_lease_costs_a_bucket(empty_bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lease, "LEASE_SECONDS", 2.0)
    place, calls = join(empty_bucket, tmp_path.name), []
    events = s3_client.client_for(s3_client.parse(place).endpoint).meta.events
    events.register("before-send.s3", lambda request, **_: calls.append(request.method), unique_id="count")
    try:
        with working_in(place, "training"):
            taken = len(calls)
            wait_for(lambda: len(calls) >= taken + 4)
            renewals = calls[taken:]
        released = len(calls) - taken - len(renewals)
    finally:
        events.unregister("before-send.s3", unique_id="count")
    assert taken <= 4
    assert renewals.count("PUT") >= 2
    assert not {"GET", "HEAD"} & set(renewals), "a renewal lists nothing"
    assert released <= 12


def test_a_folder_that_was_made_for_a_lease_alone_goes_with_it(tmp_path):
    (tmp_path / "mine").mkdir()
    for folder in ("new/run", "mine"):
        with working_in(str(tmp_path / folder), "training"):
            assert (tmp_path / folder / LEASES / "training").is_dir()
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]
    with working_in(str(tmp_path / "new" / "run"), "training"):
        (tmp_path / "new" / "run" / "result").write_text("")
    assert sorted(path.name for path in (tmp_path / "new").rglob("*")) == ["result", "run"]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigError, match="is a file; choose"):
            working_in(str(folder), "training").__enter__()
