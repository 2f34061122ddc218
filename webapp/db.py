"""The database handle, its naming convention, and the two ways into a transaction.
Every room uses it; nothing here knows a table.

`transaction()` is for the domain (Core statements, one commit); `db.session` is for pages that read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import BigInteger, Connection, DateTime, LargeBinary, MetaData, Numeric, Text, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase, registry

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Declarative base of every table; the names of constraints are the same on every machine."""

    registry = registry(
        metadata=MetaData(naming_convention=NAMING),
        type_annotation_map={
            int: BigInteger,
            str: Text,
            bytes: LargeBinary,
            datetime: DateTime(timezone=True),
            Decimal: Numeric,
        },
    )


db = SQLAlchemy(model_class=Base)


def engine_options(*, pooled: bool) -> dict[str, Any]:
    """Options for the engine: UTC, and nothing that needs a database session to last.

    Connections are kept: a new one costs the server more than most chunks of work. A forked process must
    `dispose(close=False)` of what it inherited before its first transaction.

    :param pooled: False for workers: one to store with, one to read ahead, one to keep the lease.
    """
    connect_args = {
        # pgbouncer in transaction mode knows no prepared statement of another session.
        "prepare_threshold": None,
        "application_name": "batchdesk",
        "connect_timeout": 10,
        "client_encoding": "utf8",
    }
    return {
        # A connection may have been idle for as long as a POST takes, or the server been started again.
        "pool_pre_ping": True,
        "pool_size": 8 if pooled else 3,
        "max_overflow": 8,
        "connect_args": connect_args,
    }


def normal_url(url: str) -> str:
    """`postgres://` as some hosts hand it out, made into the scheme that SQLAlchemy knows."""
    return "postgresql://" + url.removeprefix("postgres://") if url.startswith("postgres://") else url


# Plans that reach rows by the keys a statement is given. Tables that have just been filled have no statistics, and
# states change under those there are: left to itself, the planner now and then scans a table for every chunk.
BY_KEY = text(
    "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true), "
    "set_config('enable_mergejoin', 'off', true), set_config('enable_material', 'off', true)"
)

# The commit does not wait for the disk. A server that dies may forget the last such chunks, whole and in order, and no
# commit that waited; and whoever commits later and waits has them on the disk as well. So what a chunk did is either
# there, or is done again by its step, whose last commit waits.
LAZILY = text("SELECT set_config('synchronous_commit', 'off', true)")


@contextmanager
def transaction(*, by_key: bool = False, lazily: bool = False) -> Iterator[Connection]:
    """One transaction on a connection of its own: commits at the end, rolls back on any error.

    :param by_key: True for chunks of bulk work, whose statements name the rows they are about.
    :param lazily: True for chunks that their step does again if the database forgets them; never where the world is
        told next, as before a POST.
    """
    with db.engine.begin() as connection:
        if by_key:
            connection.execute(BY_KEY)
        if lazily:
            connection.execute(LAZILY)
        yield connection


def vacuum(*tables: str) -> None:
    """Let the server use the room again that rows of some tables have left, and notice how many there are. It waits for
    nobody: a table that is being vacuumed, or is somebody else's, is left alone.
    """
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"VACUUM (SKIP_LOCKED, ANALYZE) {', '.join(tables)}"))


# Looking for the parameters of a statement takes longer than many statements do; there are some hundreds of them.
_statement = lru_cache(maxsize=1000)(text)


def rows(tx: Connection, statement: str, **parameters: Any) -> Sequence[Any]:
    """All rows of a SQL statement; parameters are bound by name."""
    return tx.execute(_statement(statement), parameters).all()


def row(tx: Connection, statement: str, **parameters: Any) -> Any:
    """The first row of a SQL statement, or None."""
    return tx.execute(_statement(statement), parameters).first()


def scalar(tx: Connection, statement: str, **parameters: Any) -> Any:
    """The first column of the first row, or None."""
    return tx.execute(_statement(statement), parameters).scalar()


def run(tx: Connection, statement: str, **parameters: Any) -> int:
    """Execute a statement; the count of rows it touched."""
    return tx.execute(_statement(statement), parameters).rowcount


def raw_rows(tx: Connection, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """All rows of a SQL statement whose text and `json` are bytes (UTF-8), for whoever hands them on unread.

    :param statement: for the driver: parameters are written `%(name)s`.
    """
    cursor = tx.connection.driver_connection.cursor(binary=True)  # type: ignore[union-attr]
    as_bytes = cursor.adapters.get_loader(cursor.adapters.types["bytea"].oid, BINARY)
    for kind in ("text", "json"):
        cursor.adapters.register_loader(kind, as_bytes)
    with cursor, _as_sqlalchemy_does(tx, statement):
        found: list[tuple[Any, ...]] = cursor.execute(statement, parameters).fetchall()
    return found


@contextmanager
def _as_sqlalchemy_does(tx: Connection, statement: str) -> Iterator[None]:
    """What the driver raises is raised as by SQLAlchemy's own statements."""
    driver = tx.dialect.loaded_dbapi
    try:
        yield
    except driver.Error as error:
        raise DBAPIError.instance(statement, None, error, driver.Error, dialect=tx.dialect) from error


def copy_rows(tx: Connection, table: str, columns: Sequence[str], records: Iterable[Sequence[Any]]) -> int:
    """COPY records into a table within the transaction; the count of records.

    Text format with psycopg's own escaping: the values are str, int, bool, None, Decimal, bytes, datetime.
    """
    cursor = tx.connection.driver_connection.cursor()  # type: ignore[union-attr]
    statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN"
    count = 0
    with _as_sqlalchemy_does(tx, statement), cursor, cursor.copy(statement) as copy:
        for record in records:
            copy.write_row(record)
            count += 1
    return count


BINARY = 1  # the format of a value, in the server's protocol
DISK_FULL = "53100"
# SQLSTATEs of a server that cannot be talked to just now: connections, too many of them, starting up and shutting down.
AWAY = ("08", "53300", "57P")


def trouble(error: SQLAlchemyError) -> str | None:
    """What is the matter with the database, in a sentence for people; None when the statement is at fault."""
    if isinstance(error, PoolTimeout):
        return "The database does not answer in time: all connections are in use."
    if not isinstance(error, DBAPIError) or error.orig is None:
        return None
    words = str(error.orig).strip().splitlines() or [type(error.orig).__name__]
    if disk_full(error):
        return f"The database's disk is full: {words[0]}"
    state = getattr(error.orig, "sqlstate", None)
    # Without a SQLSTATE no server has spoken: the connection could not be made, or broke.
    lost = error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
    if state.startswith(AWAY) if state else lost:
        return f"The database does not answer: {words[0]}"
    return None


def disk_full(error: Exception) -> bool:
    """Whether the database has no room left to write in."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) == DISK_FULL


def array(values: Iterable[int | str | None]) -> str:
    """PostgreSQL's own text of an array, to be bound and cast: psycopg takes longer over it than the server."""
    return "{" + ",".join(["NULL" if v is None else _element(v) if type(v) is str else str(v) for v in values]) + "}"


def integers(text: str) -> list[int]:
    """The numbers of an array of integers without NULL, from PostgreSQL's own text of it."""
    return [int(number) for number in text[1:-1].split(",")] if text != "{}" else []


def _element(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def utcnow() -> datetime:
    """Our own clock, in UTC; never compared with a lease or a due time (those use the database's)."""
    return datetime.now(UTC)
