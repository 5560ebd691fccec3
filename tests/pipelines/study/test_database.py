"""The database of answers: the study that it belongs to, supported kinds, and SQLite's durability."""

import pytest
import sqlalchemy as sa

from pipelines.study.database import open_database
from sr3core.errors import ConfigError, DataError


def test_a_database_of_another_study_and_other_databases_are_refused(tmp_path):
    open_database(None, tmp_path / "a.sqlite", "other").close()
    with pytest.raises(DataError, match="holds the answers of study other"):
        open_database(None, tmp_path / "a.sqlite", "ours")
    with pytest.raises(ConfigError, match="'mysql' is not supported"):
        open_database("mysql://x/y", tmp_path / "a.sqlite", "ours")
    with pytest.raises(ConfigError, match="is not a database URL"):
        open_database("what is this", tmp_path / "a.sqlite", "ours")


def test_sqlite_writes_ahead_and_waits_for_the_disk(tmp_path):
    database = open_database(None, tmp_path / "study.sqlite", "ours")
    with database.read() as connection:
        assert connection.scalar(sa.text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(sa.text("PRAGMA synchronous")) == 2  # FULL
    database.close()
