"""Concurrent processes: another promotion meanwhile, a lost lease, and a failed training that releases its lease."""

import re
import threading

import pytest

from cluster.cli import main
from pipelines.registry.registry import Registry
from pipelines.settings.train import RunConfig
from pipelines.storage.leases.journal import Journal
from pipelines.storage.leases.lease import hold, is_held
from sr3core.config import override
from sr3core.errors import StorageError
from tests.processes import wait_for
from tests.tune.retraining.chains import add_photos, make_config, retrained, write
from tune.retraining.lease import retraining_lease
from tune.retraining.retrain import retrain


def test_a_model_that_others_promoted_meanwhile_is_what_counts(chain, photos, monkeypatch):
    """Another process promotes between comparison and promotion: the new model is then compared with that one."""
    add_photos(photos, chain, 60, 70)
    assert retrained(chain, 1, "--always", searches=()) == 0
    add_photos(photos, chain, 70, 80)
    promote, registry = Registry.promote, Registry(str(chain / "models"))
    calls = []

    def meddled(self, name, why, after):
        calls.append(why)
        if len(calls) == 1:
            registry.promote_by_hand("v0002")
        return promote(self, name, why, after)

    monkeypatch.setattr(Registry, "promote", meddled)
    assert retrained(chain, 160, searches=()) == 0
    assert len(calls) == 2
    assert "better than v0001" in calls[0]
    assert "better than v0002" in calls[1]
    assert [entry.content["version"] for entry in registry.history()] == ["v0001", "v0002", "v0003"]


def test_a_training_that_fails_is_reported_the_old_model_stays_and_the_lease_is_free(chain, photos, capsys):
    add_photos(photos, chain, 60, 70)
    config = make_config(chain, 100, searches=())
    wild = override(config.run_config.stages[0], optimizer__learning_rate=1e30, optimizer__gradient_clip=None)
    config = make_config(chain, 100, searches=(), run=RunConfig(name="wild", stages=(wild,)))
    assert main(["retrain", write(chain, config)]) == 1
    message = capsys.readouterr().err
    assert re.search(r"retraining-0002: training failed: 8-16: ", message)
    assert "--fresh abandons this retraining" in message
    registry = Registry(str(chain / "models"))
    assert registry.promoted()[0].name == "v0001"
    lease = Journal(registry.lease)
    assert not is_held(lease.last()), "though its process is alive"
    with hold(registry.lease, "the next one", 5):
        assert is_held(lease.last())


def test_a_retraining_that_has_lost_its_lease_stops_before_it_publishes_anything(chain, photos):
    """Another process considers it dead and takes over the lease while it is running."""
    add_photos(photos, chain, 60, 70)
    registry = Registry(str(chain / "models"))
    journal = Journal(registry.lease)

    def take_over(line: str) -> None:
        if not line.startswith("retrain: starting"):
            return
        while (
            journal.append(journal.last(), {"owner": "another", "purpose": "its own", "since": 0.0, "until": 9e9})
            is None
        ):
            pass
        wait_for(lambda: not any(thread.name == "lease" for thread in threading.enumerate()))  # it has noticed

    config = make_config(chain, 2, searches=(), lease_seconds=1.0)
    with pytest.raises(StorageError, match=r"lost the lease: another \(its own"), retraining_lease(config) as lease:
        retrain(config, lease, report=take_over)
    assert [version.name for version in registry.versions()] == ["v0001"]
    assert registry.promoted()[0].name == "v0001"
    assert journal.last().content["owner"] == "another", "what is another's is not given back"


def files(folder):
    """Path -> when it was written, of everything in a folder."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def steal(registry):
    """Take a registry's lease, as a process does that considers its holder dead."""
    journal = Journal(registry.lease)
    content = {"owner": "another", "purpose": "its own", "since": 0.0, "until": 9e9, "token": "another's"}
    while journal.append(journal.last(), content) is None:
        pass


def test_a_lease_that_is_lost_while_training_stops_the_workers_and_nothing_more_is_written(chain, photos):
    """It is stolen as soon as the training has saved a checkpoint; unnoticed, the training would go on for days."""
    add_photos(photos, chain, 60, 70)
    registry, run = Registry(str(chain / "models")), chain / "work" / "retraining-0002" / "run"
    done = threading.Event()

    def thief():
        wait_for(lambda: len(list(run.glob("8-16/checkpoints/step-*"))) > 1, lambda: not done.is_set())
        steal(registry)

    stealing = threading.Thread(target=thief)
    stealing.start()
    try:
        config = make_config(chain, 10_000_000, searches=(), lease_seconds=1.0)
        with pytest.raises(StorageError, match=r"lost the lease: another \(its own"), retraining_lease(config) as lease:
            retrain(config, lease, report=lambda line: None)
    finally:
        done.set()
        stealing.join()
    wait_for(lambda: not any(thread.name == "8-16" for thread in threading.enumerate()))  # the stage's training
    before = files(run)
    assert not list(run.rglob("*.tmp*"))
    assert [version.name for version in registry.versions()] == ["v0001"]
    assert files(run) == before


def test_a_lease_that_is_lost_while_searching_stops_the_search(chain, photos):
    add_photos(photos, chain, 60, 70)
    registry, heard = Registry(str(chain / "models")), []

    def report(line):
        heard.append(line)
        if line.startswith("trial 2/"):
            steal(registry)
            wait_for(lambda: sum(thread.name == "lease" for thread in threading.enumerate()) < 2)  # it has noticed

    config = make_config(chain, 2, lease_seconds=1.0)
    with pytest.raises(Exception, match=r"lost the lease: another \(its own"), retraining_lease(config) as lease:
        retrain(config, lease, report=report)
    assert not any(line.startswith("trial 7/") for line in heard)
    assert not list((chain / "work" / "retraining-0002").rglob("search.json"))
    assert [version.name for version in registry.versions()] == ["v0001"]
