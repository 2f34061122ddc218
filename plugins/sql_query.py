"""The rows of a query as records: from any database that SQLAlchemy can open, read only, streamed."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time
from math import isfinite
from typing import Any

from pydantic import BaseModel, Field

from webapp.hooks import InputError, Record, Secret, Source, hookimpl, reveal

FETCHED = 1_000  # rows that are held at a time


class Query(BaseModel):
    """What to read, and what its columns are."""

    database: Secret = Field(
        description="env:NAME, where the environment variable NAME of the workers holds the database's URL, like "
        "postgresql://user:password@host/name. Give it a user that may only read."
    )
    query: str = Field(
        min_length=1,
        description="A SELECT; each of its rows becomes a record. With an ORDER BY the records keep their order.",
        json_schema_extra={"format": "textarea"},
    )
    key_field: str = Field("key", min_length=1, title="Key column", description="The column that names a record.")
    text_field: str = Field(
        "text", min_length=1, title="Text column", description="The column that holds its text; documents need one."
    )
    kind: str = Field("document", pattern="^[a-z][a-z0-9_]*$", description="What the records are: document, lead, …")


class SqlQuery(Source[Query]):
    """A query's rows: each column is a member of the record's data."""

    name = "sql_query"
    title = "SQL query"
    Settings = Query

    def records(self, settings: Query) -> Iterator[Record]:
        with _told(), _connected(reveal(settings.database)) as connection:
            query = settings.query.strip().rstrip(";")
            # As it stands: a % or a : in it is no place for a parameter.
            options = {"stream_results": True, "yield_per": FETCHED, "no_parameters": True}
            with connection.exec_driver_sql(query, execution_options=options) as rows:
                if not rows.returns_rows:
                    raise InputError("The query gives no rows: write a SELECT.")
                names = _columns(list(rows.keys()), settings)
                for row in rows:
                    data = {name: _plain(value) for name, value in zip(names, row, strict=True)}
                    yield Record(data[settings.key_field], data)


def _columns(names: list[str], settings: Query) -> list[str]:
    """The names of the columns, each there once and the key among them."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"The query gives several columns called {', '.join(twice)}: tell them apart with AS.")
    wanted = {"key": settings.key_field} | ({"text": settings.text_field} if settings.kind == "document" else {})
    for what, name in wanted.items():
        if name not in names:
            raise InputError(
                f"The query gives no column '{name}' for the {what}: it gives {', '.join(names)}. Name one of these, "
                f"or write AS {name}."
            )
    return names


@contextmanager
def _connected(url: str) -> Iterator[Any]:
    """A connection in a transaction that may only read, where the database has such."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    if url.startswith("postgres://"):
        url = "postgresql://" + url.removeprefix("postgres://")
    engine = create_engine(url, poolclass=NullPool)
    dialect = engine.dialect.name
    with engine.connect() as connection:
        if dialect == "postgresql":
            connection = connection.execution_options(postgresql_readonly=True)
        elif dialect in ("mysql", "mariadb"):
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")  # the next one, which begins with the query
        elif dialect == "sqlite":
            connection.exec_driver_sql("PRAGMA query_only = ON")
        yield connection


@contextmanager
def _told() -> Iterator[None]:
    """What goes wrong, in words for whoever wrote the query; never the URL, which may hold a password."""
    from sqlalchemy import exc

    try:
        yield
    except exc.NoSuchModuleError as error:
        raise InputError(f"No such kind of database: {error.args[0].rpartition(':')[2]}. Look at the URL.") from None
    except exc.ArgumentError:
        raise InputError(
            "The database's URL cannot be read: it is like postgresql://user:password@host/name."
        ) from None
    except ModuleNotFoundError as error:
        raise InputError(
            f"The driver of this database is not there: the platform engineer installs the Python package that "
            f"brings {error.name}, where the workers run."
        ) from None
    except (exc.OperationalError, exc.InterfaceError) as error:
        raise InputError(f"The database does not answer, or refuses: {_first_line(error)}") from None
    except exc.DBAPIError as error:
        raise InputError(f"The database refuses the query: {_first_line(error)}") from None


def _first_line(error: Any) -> str:
    lines = str(error.orig).strip().splitlines()
    return lines[0] if lines else type(error.orig).__name__


def _plain(value: Any) -> Any:
    """A value as JSON holds it: dates as ISO texts, decimals as exact texts, bytes as base64."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, Sequence | set | frozenset):
        return [_plain(part) for part in value]
    return str(value)


@hookimpl
def register_sources() -> Iterable[Source[Any]]:
    return [SqlQuery()]
