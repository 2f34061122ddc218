"""A sink that puts outputs into a table of any database that SQLAlchemy speaks to, each in a row of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from webapp.hooks import InputError, OutputRecord, RunFacts, Secret, Sink, hookimpl, reveal

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Table

FIXED = ("key", "custom_id", "run", "task", "status", "output", "error", "delivered_at")
IN_ONE_STATEMENT = 500  # some databases take no more values
CONNECT_SECONDS = 10
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_NAME = re.compile(r"[^\W\d]\w{0,62}")


class SqlTableSettings(BaseModel):
    """Where the table is, and what makes a row the same."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    url: Secret = Field(
        title="URL",
        description="The database's URL, such as postgresql://user:password@host/name, in an environment variable of "
        "the workers: write env:NAME.",
    )
    table: str = Field(
        default="batchdesk_outputs",
        description="The table, or schema.table. It is made if it is not there.",
    )
    identity: Literal["key", "custom_id"] = Field(
        default="key",
        description="What a row is for. key: one row for each record and task, which the latest run replaces; records "
        "of several datasets with the same keys need a table each. custom_id: one row for each answer, of every run.",
    )
    fields: list[str] = Field(
        default=[],
        description="Fields of an output that get a column of their own, as text, beside the column output.",
    )

    @field_validator("table")
    @classmethod
    def _table(cls, value: str) -> str:
        if not all(_NAME.fullmatch(part) for part in value.split(".")) or value.count(".") > 1:
            raise ValueError("write a name of letters, digits and _, or two with a dot between them")
        return value

    @field_validator("fields")
    @classmethod
    def _fields(cls, value: list[str]) -> list[str]:
        for name in value:
            if name in FIXED or not _NAME.fullmatch(name) or value.count(name) > 1:
                raise ValueError(f"'{name}' cannot be the name of a column: it is taken, given twice, or no plain name")
        return value


class SqlTable(Sink[SqlTableSettings]):
    """Reads what the table has of the outputs, and writes only what it lacks: to deliver again changes nothing."""

    name = "sql_table"
    title = "Table of a SQL database"
    Settings = SqlTableSettings

    def deliver(self, run: RunFacts, outputs: Sequence[OutputRecord], settings: SqlTableSettings, key: str) -> None:
        from sqlalchemy.exc import SQLAlchemyError

        engine = _engine(reveal(settings.url))
        try:
            table = _table(settings)
            _make(engine, table)
            with engine.begin() as connection:
                _write(connection, table, run, [_row(run, one, settings) for one in outputs], settings.identity)
        except SQLAlchemyError as error:
            # Its own words would hold the statement with all its values.
            raise InputError(f"The table {settings.table} was not written: {_told(error)}") from None
        finally:
            engine.dispose()


def _engine(url: str) -> Engine:
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.pool import NullPool

    if url.startswith("postgres://"):  # as some hosts hand it out
        url = "postgresql" + url.removeprefix("postgres")
    kind = make_url(url).get_backend_name()
    waits = {"postgresql": "connect_timeout", "mysql": "connect_timeout", "mariadb": "connect_timeout"}
    waits |= {"sqlite": "timeout"}
    patience = {waits[kind]: CONNECT_SECONDS} if kind in waits else {}
    return create_engine(url, poolclass=NullPool, connect_args=patience)


def _table(settings: SqlTableSettings) -> Table:
    from sqlalchemy import BigInteger, Column, DateTime, MetaData, String, Table, Text

    # Some databases make no primary key of a text without a limit.
    name = Text().with_variant(String(400), "mysql", "mariadb", "mssql", "oracle")
    keys = ("key", "task") if settings.identity == "key" else ("custom_id",)
    columns: list[Column[Any]] = [
        Column(one, name, primary_key=one in keys, nullable=False) for one in ("key", "custom_id", "task")
    ]
    columns += [Column("run", BigInteger, nullable=False, autoincrement=False), Column("status", name, nullable=False)]
    columns += [Column("output", Text), Column("error", Text)]
    columns += [Column(one, Text) for one in settings.fields]
    columns += [Column("delivered_at", DateTime(timezone=True), nullable=False)]
    *schema, table = settings.table.split(".")
    return Table(table, MetaData(), *columns, schema=schema[0] if schema else None)


def _make(engine: Engine, table: Table) -> None:
    """Make the table, if it is not there; one that is there must have the columns."""
    from sqlalchemy import inspect

    if not inspect(engine).has_table(table.name, schema=table.schema):
        table.create(engine, checkfirst=True)
        return
    there = {one["name"] for one in inspect(engine).get_columns(table.name, schema=table.schema)}
    lacking = [column.name for column in table.columns if column.name not in there]
    if lacking:
        raise InputError(
            f"The table {table.fullname} lacks the columns {', '.join(lacking)}: add them, or name another."
        )


def _write(connection: Connection, table: Table, run: RunFacts, rows: list[dict[str, Any]], identity: str) -> None:
    """Put in what is not there, and in place of what is older; what a newer run has put there stays."""
    from sqlalchemy import delete, insert, select

    mine = (table.c.task == run.task) if identity == "key" else (table.c.run == run.id)
    column = table.c[identity]
    compared = [one for one in table.columns if one.name != "delivered_at"]
    for part in _parts(rows, IN_ONE_STATEMENT):
        wanted = {row[identity]: row for row in part}  # of the same one twice, the last
        there = {
            row[identity]: dict(row)
            for row in connection.execute(select(*compared).where(mine, column.in_(wanted))).mappings()
        }
        fresh = [row for name, row in wanted.items() if _replaces(row, there.get(name))]
        old = [row[identity] for row in fresh if row[identity] in there]
        if old:
            # Only what is not newer: another run may be at it in this moment.
            connection.execute(delete(table).where(mine, column.in_(old), table.c.run <= run.id))
        if fresh:
            connection.execute(insert(table), fresh)


def _replaces(row: Mapping[str, Any], there: Mapping[str, Any] | None) -> bool:
    """Whether a row is to be written over the one that is there, if any."""
    if there is None:
        return True
    return bool(there["run"] <= row["run"]) and any(there[name] != row[name] for name in there)


def _row(run: RunFacts, one: OutputRecord, settings: SqlTableSettings) -> dict[str, Any]:
    fields = one.output if isinstance(one.output, Mapping) else {}
    row = {
        "key": one.key,
        "custom_id": one.custom_id,
        "run": run.id,
        "task": run.task,
        "status": one.status,
        "output": None if one.output is None else json.dumps(one.output),
        "error": one.error,
        **{name: _text(fields.get(name)) for name in settings.fields},
    }
    stored = {name: _storable(value) if isinstance(value, str) else value for name, value in row.items()}
    return {**stored, "delivered_at": datetime.now(UTC)}


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _storable(text: str) -> str:
    """What no text column holds, NUL and lone surrogates, as the escapes JSON has for it."""
    return _UNSTORABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _parts(rows: list[dict[str, Any]], size: int) -> Iterable[list[dict[str, Any]]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _told(error: Exception) -> str:
    words = str(getattr(error, "orig", None) or error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {words[0]}"


@hookimpl
def register_sinks() -> list[Sink[Any]]:
    return [SqlTable()]
