"""Journals on a disk and on a real S3 server: of processes that race, one is first."""

import json

import pytest

from pipelines.storage.leases.journal import NOTHING, Journal
from sr3core.errors import StorageError
from tests.pipelines.storage.leases.rivals import start

RACER = """
# argv: journal, name. Appends 12 entries, each to what it last saw, and counts how often it was first.
import sys
from pipelines.storage.leases.journal import Journal
journal, first = Journal(sys.argv[1]), 0
sys.stdin.readline()
while first < 12:
    entry = journal.append(journal.last(), {"by": sys.argv[2], "its": first})
    first += entry is not None
"""


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


def test_a_writer_that_has_seen_only_deleted_entries_is_not_first(place):
    journal = Journal(place)
    seen = [NOTHING]
    for number in range(6):
        entry = journal.append(seen[-1], {"number": number})
        assert entry is not None
        seen.append(entry)
    journal.forget(before=5)
    for old in seen[:4]:
        assert journal.append(old, {"number": "late"}) is None
    assert [entry.number for entry in journal.entries()] == [5, 6]
    assert journal.append(seen[-1], {"number": 7}).number == 7
    journal.forget(before=100)
    assert [entry.number for entry in journal.entries()] == [7]


def test_a_damaged_entry_is_named(tmp_path):
    journal = Journal(str(tmp_path))
    entry = journal.append(NOTHING, {"a": 1})
    assert entry is not None
    journal.append(entry, {"a": 2})
    (tmp_path / "00000002.json").write_text(json.dumps({"a": 2})[:-1])
    with pytest.raises(StorageError, match=r"00000002.json is damaged: .*delete it to return to the entry before"):
        journal.last()
