"""The answers' database: SQLite in WAL mode, or PostgreSQL at a URL. A transaction is stored durably or not at all."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from sr3core.errors import ConfigError, DataError, StorageError

BUSY_SECONDS = 30.0
"""How long a transaction waits for another one."""

tables = sa.MetaData()

study_row = sa.Table(
    "study",
    tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("fingerprint", sa.String(64), nullable=False),
)
participants = sa.Table(
    "participants",
    tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("external_id", sa.String(128), nullable=False, unique=True),
    sa.Column("state", sa.String(16), nullable=False),  # entered, active, done, left
    sa.Column("slot", sa.Integer, index=True),
    sa.Column("valid", sa.Boolean),  # of those who are done: not excluded by the declared rules
    sa.Column("entered_at", sa.Float, nullable=False),
    sa.Column("last_seen_at", sa.Float, nullable=False),
    sa.Column("finished_at", sa.Float),
)
presentations = sa.Table(
    "presentations",
    tables,
    sa.Column("nonce", sa.String(32), primary_key=True),
    sa.Column("participant", sa.ForeignKey("participants.id"), nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("issued_at", sa.Float, nullable=False),
    sa.Index("presentations_by_position", "participant", "position"),
)
answers = sa.Table(
    "answers",
    tables,
    sa.Column("participant", sa.ForeignKey("participants.id"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),  # a second answer to a pair cannot be stored
    sa.Column("nonce", sa.String(32), nullable=False, unique=True),
    sa.Column("chose_first", sa.Boolean, nullable=False),
    sa.Column("exposure_seconds", sa.Float, nullable=False),  # as measured in the page
    sa.Column("response_seconds", sa.Float, nullable=False),  # after the images were hidden, in the page
    sa.Column("server_seconds", sa.Float, nullable=False),  # from issuing the token to the answer
    sa.Column("focus_lost_viewing", sa.Integer, nullable=False),
    sa.Column("focus_lost_answering", sa.Integer, nullable=False),
    sa.Column("num_presentations", sa.Integer, nullable=False),
    sa.Column("answered_at", sa.Float, nullable=False),
)


class Database:
    """The open database of one study."""

    def __init__(self, engine: sa.Engine, where: str) -> None:
        self._engine, self._where = engine, where
        self._reader = engine.execution_options(begin="DEFERRED")

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that is committed when the block ends, or not at all.

        Raises:
            StorageError: the database is full, read-only or gone; nothing of the block was stored.
            IntegrityError: another request came first.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            raise self._failed(error) from error

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A consistent view.

        Raises:
            StorageError: the database cannot be read.
        """
        try:
            with self._reader.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _failed(self, error: SQLAlchemyError) -> StorageError:
        reason = " ".join(str(error.orig if isinstance(error, DBAPIError) else error).split())
        closed = "unable to open" in reason or "readonly" in reason
        remedy = "choose a --database that can be written to" if closed else "free space or repair the database"
        return StorageError(f"{self._where}: {reason}; {remedy}; every acknowledged answer is stored")


def open_database(url: str | None, sqlite_path: Path, fingerprint: str) -> Database:
    """Open a study's database, creating it if needed; checks that it can be written.

    Args:
        url: SQLAlchemy URL of a PostgreSQL database; None for SQLite.
        sqlite_path: file of the SQLite database.
        fingerprint: the study's.

    Raises:
        ConfigError: url is neither SQLite nor PostgreSQL.
        DataError: it holds the answers of another study.
        StorageError: it cannot be opened or written.
    """
    database = _connect(url, sqlite_path)
    try:
        with database.write() as connection:
            tables.create_all(connection)
            if connection.scalar(sa.select(study_row.c.fingerprint)) is None:
                connection.execute(study_row.insert().values(id=1, fingerprint=fingerprint))
    except IntegrityError as error:
        raise StorageError("another server is creating this database right now; start again") from error
    _check(database, fingerprint)
    with database.write() as connection:  # a read-only file is noticed now, not at the first answer
        connection.execute(study_row.update().values(fingerprint=fingerprint))
    return database


def open_existing(url: str | None, sqlite_path: Path, fingerprint: str) -> Database:
    """Open a database for reading; see `open_database`.

    Raises:
        DataError: it does not exist yet.
    """
    if url is None and not sqlite_path.is_file():
        raise DataError(f"{sqlite_path}: there are no answers yet; `sr3 study serve` collects them")
    database = _connect(url, sqlite_path)
    _check(database, fingerprint)
    return database


def _check(database: Database, fingerprint: str) -> None:
    with database.read() as connection:
        found = connection.scalar(sa.select(study_row.c.fingerprint))
    if found != fingerprint:
        raise DataError(f"database: it holds the answers of study {found}, not of this one, {fingerprint}")


def _connect(url: str | None, sqlite_path: Path) -> Database:
    if url is None:
        address = sa.URL.create("sqlite", database=str(sqlite_path))  # in a text, a question mark would begin options
        engine = sa.create_engine(address, connect_args={"timeout": BUSY_SECONDS})
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return Database(engine, str(sqlite_path))
    address = check_address(url)
    engine = sa.create_engine(address.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    return Database(engine, address.render_as_string(hide_password=True))


def check_address(url: str) -> sa.URL:
    """Read the URL of a database.

    Raises:
        ConfigError: it is none, or none of PostgreSQL.
    """
    remedy = "omit --database for SQLite, or use postgresql+psycopg://USER@HOST/NAME"
    try:
        address = sa.make_url(url)
    except SQLAlchemyError as error:
        raise ConfigError(f"database: {url!r} is not a database URL; {remedy}") from error
    if address.get_backend_name() != "postgresql":
        raise ConfigError(f"database: {address.get_backend_name()!r} is not supported; {remedy}")
    return address


def _set_up_sqlite(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # transactions are started explicitly below, not implicitly by the driver
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")  # an acknowledged answer survives a power cut


def _begin_sqlite(connection: sa.Connection) -> None:
    # A writer takes its lock at once: two that first read and then write would otherwise block each other.
    connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('begin', 'IMMEDIATE')}")
