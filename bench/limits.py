"""The limits: the same rows through the same tables, keys and wire, with as little else as can be.
The measures time them between the product's steps; no code of the product runs here.

The limits of planning, ingestion and processing empty the tables that the product has just filled and put the same rows
back, so that the round goes on from there.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import psycopg

KEYS = {"item_params": "item_id", "outputs": "request_id"}
PLANNED = ("items", "item_params", "requests")
RESULT_COLUMNS = "request_id, kind, stop_reason, error_type, error_message, size, line"
LEDGER_COLUMNS = (
    "api_batch_id, custom_id, account_id, run_id, request_id, model, input_tokens, write_5m_tokens, write_1h_tokens, "
    "read_tokens, output_tokens, web_searches, inference_geo, cost_usd, sync_cost_usd, "
    "uncached_cost_usd, price, duplicate, priced_at"
)


def plan(connection: psycopg.Connection) -> float:
    """Seconds to COPY finished rows into the tables that planning fills."""
    return _again(connection, PLANNED)


def process(connection: psycopg.Connection) -> float:
    """Seconds to COPY finished rows into the table that processing fills."""
    return _again(connection, ("outputs",))


def _again(connection: psycopg.Connection, names: Sequence[str]) -> float:
    """Seconds to COPY the rows of some tables into them, which are emptied first."""
    tables = [(table, _columns(connection, table)) for table in names]
    rows = [(f"COPY {table} ({columns})", _copied(connection, table, columns)) for table, columns in tables]
    connection.execute(f"TRUNCATE {', '.join(names)}")
    connection.commit()
    began = time.perf_counter()
    for statement, blocks in rows:
        with connection.cursor().copy(f"{statement} FROM STDIN") as copy:
            for block in blocks:
                copy.write(block)
    connection.commit()
    return time.perf_counter() - began


def submit(connection: psycopg.Connection, batch_id: int, port: int) -> float:
    """Seconds to COPY the rows of a batch out of the database into a socket, and to see them read at its other end."""
    statement = (
        "COPY (SELECT r.custom_id, p.own FROM requests r JOIN item_params p ON p.item_id = r.item_id "
        f"WHERE r.batch_id = {int(batch_id)}) TO STDOUT"
    )
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as sink:
        sink.sendall(b"POST /raw HTTP/1.1\r\n\r\n")
        with connection.cursor().copy(statement) as copy:
            for block in copy:
                sink.sendall(block)
        sink.shutdown(socket.SHUT_WR)
        assert sink.recv(1 << 12).startswith(b"HTTP/1.1 200")
    taken = time.perf_counter() - began
    connection.rollback()
    return taken


def ingest(connection: psycopg.Connection, lines: bytes) -> float:
    """Seconds to parse lines of results and COPY them and their ledger lines into their tables."""
    ids: dict[str, int] = dict(connection.execute("SELECT custom_id, id FROM requests").fetchall())
    connection.execute("TRUNCATE results, ledger_lines")
    connection.commit()
    began = time.perf_counter()
    results, ledger = _rows(lines, ids, datetime.now(UTC))
    for table, columns, rows in (
        ("results", RESULT_COLUMNS, results),
        ("ledger_lines", LEDGER_COLUMNS, ledger),
    ):
        with connection.cursor().copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
    connection.commit()
    return time.perf_counter() - began


Rows = list[tuple[Any, ...]]


def _rows(lines: bytes, ids: dict[str, int], now: datetime) -> tuple[Rows, Rows]:
    results: Rows = []
    ledger: Rows = []
    cost, sync_cost = Decimal("0.00123456"), Decimal("0.00246912")
    for raw in lines.splitlines():
        line = orjson.loads(raw)
        custom_id, message = line["custom_id"], line["result"]["message"]
        usage = message["usage"]
        request_id = ids[custom_id]
        results.append((request_id, "succeeded", message["stop_reason"], None, None, len(raw), raw.decode()))
        ledger.append(
            (
                *("msgbatch", custom_id, 1, 1, request_id, message["model"], usage["input_tokens"], 0, 0),
                *(usage["cache_read_input_tokens"], usage["output_tokens"], 0, usage["inference_geo"]),
                *(cost, sync_cost, sync_cost, "2026-10-07", False, now),
            )
        )
    return results, ledger


def _columns(connection: psycopg.Connection, table: str) -> str:
    found = connection.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_name = %s ORDER BY ordinal_position", [table]
    )
    return ", ".join(name for (name,) in found.fetchall())


def _copied(connection: psycopg.Connection, table: str, columns: str) -> Sequence[bytes]:
    """The rows of a table as COPY's own text, in blocks as they came."""
    key = KEYS.get(table, "id")
    with connection.cursor().copy(f"COPY (SELECT {columns} FROM {table} ORDER BY {key}) TO STDOUT") as copy:
        return [bytes(block) for block in copy]
