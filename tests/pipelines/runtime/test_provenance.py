"""Provenance is a function of configuration, code and packages, without times."""

import json
import subprocess

import pytest

from pipelines.runtime import provenance as module
from pipelines.runtime.provenance import git_commit, provenance, versions
from pipelines.settings.evaluate import EvaluateConfig, MeasureConfig
from sr3core.config import fingerprint


@pytest.fixture
def fresh():
    """No commit and no versions remembered, before and after."""
    for cached in (git_commit, versions):
        cached.cache_clear()
    yield
    for cached in (git_commit, versions):
        cached.cache_clear()


def test_it_holds_what_made_an_artifact_and_is_the_same_every_time():
    config = EvaluateConfig(seed=7)
    described = provenance(config, {"run": "abc"})
    assert described == provenance(config, {"run": "abc"})
    assert json.loads(json.dumps(described)) == described
    assert described["seed"] == 7
    assert described["parents"] == {"run": "abc"}
    assert described["fingerprint"] == fingerprint(config)
    assert provenance(MeasureConfig())["seed"] is None


def test_the_commit_is_the_checkouts_the_stated_one_or_unknown(fresh, monkeypatch, tmp_path):
    monkeypatch.setenv("SR3_GIT_COMMIT", "stated")
    assert git_commit() == "stated"
    git_commit.cache_clear()
    monkeypatch.delenv("SR3_GIT_COMMIT")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "provenance.py"))
    assert git_commit() == "unknown"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@x"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "file").write_text("one")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "first"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    git_commit.cache_clear()
    assert git_commit() == commit
    (tmp_path / "file").write_text("two")
    git_commit.cache_clear()
    assert git_commit() == f"{commit}-dirty"


def test_a_package_that_is_not_installed_is_absent(fresh, monkeypatch):
    monkeypatch.setattr(module, "_PACKAGES", ("numpy", "no-such-package"))
    found = versions()
    assert found["no-such-package"] == "absent"
    assert found["numpy"][0].isdigit()
