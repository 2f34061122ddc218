"""Downloads of many rows: JSONL as it is stored, or CSV for spreadsheets, written while they are read.
Pages of runs and requests call `streamed`. Whoever may see the rows may have them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from flask import Flask, Response, current_app
from sqlalchemy import Connection

from webapp import db
from webapp.admin.headers import DOWNLOAD
from webapp.batches.queries import Reading
from webapp.money.spending import Charge
from webapp.records.exporting import (
    COLUMNS,
    REQUEST_COLUMNS,
    OutputRow,
    RequestRow,
    cell,
    csv_lines,
    jsonl_line,
    request_line,
)
from webapp.records.jsontext import dumps

PIECE = 1 << 16  # bytes that are sent at once
TYPES = {"jsonl": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}

Row = TypeVar("Row", OutputRow, RequestRow, Charge)
CHARGE_COLUMNS = (
    *("day", "account", "organization", "workspace", "sandbox", "model", "inference_geo", "price", "class"),
    *("quantity", "rate_usd_per_million", "cost_usd"),
)


def subjects(rows: Callable[[Reading], Iterator[OutputRow]], kind: str, name: str) -> Response:
    """Rows of subjects as a file.

    :param rows: reads them, each part in a transaction that it opens with what it is given.
    :param kind: jsonl or csv.
    """
    return _streamed(rows, kind, name, jsonl_line, lambda found: csv_lines(found, COLUMNS))


def requests(rows: Callable[[Reading], Iterator[RequestRow]], kind: str, name: str) -> Response:
    """Rows of requests as a file; see `subjects`."""
    return _streamed(rows, kind, name, request_line, lambda found: csv_lines(found, REQUEST_COLUMNS))


def charges(rows: Callable[[Reading], Iterator[Charge]], kind: str, name: str) -> Response:
    """What was charged as a file, amounts as texts, to the last digit; see `subjects`."""
    return _streamed(rows, kind, name, _charge_line, _charge_table)


def _charge_values(charge: Charge) -> list[Any]:
    """In the order of `CHARGE_COLUMNS`."""
    amounts = [None if value is None else f"{value:f}" for value in (charge.rate_usd, charge.cost_usd)]
    return [charge.day.isoformat(), *charge[1:-2], *amounts]


def _charge_line(charge: Charge) -> bytes:
    return dumps(dict(zip(CHARGE_COLUMNS, _charge_values(charge), strict=True))) + b"\n"


def _charge_table(found: Iterable[Charge]) -> Iterator[bytes]:
    """Every cell quoted, and none of them a formula; amounts are digits and a point."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(CHARGE_COLUMNS)
    for charge in found:
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()
        values = [("yes" if value else "no") if isinstance(value, bool) else value for value in _charge_values(charge)]
        writer.writerow([cell(value) if isinstance(value, str) else value for value in values])
    yield buffer.getvalue().encode()


def _streamed(
    rows: Callable[[Reading], Iterator[Row]],
    kind: str,
    name: str,
    line: Callable[[Row], bytes],
    table: Callable[[Iterable[Row]], Iterator[bytes]],
) -> Response:
    # The session of this request, and its transaction, end before the first row is read.
    db.db.session.remove()
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    found = rows(lambda: _reading(app))
    lines: Iterator[bytes] = table(found) if kind == "csv" else map(line, found)
    # Without a length it is sent in chunks: where the rows break off, so does the download, without its last chunk.
    response = Response(_pieces(lines), content_type=TYPES[kind])
    response.headers["Content-Disposition"] = f'attachment; filename="{name}.{kind}"'
    response.headers["Content-Security-Policy"] = DOWNLOAD
    return response


@contextmanager
def _reading(app: Flask) -> Iterator[Connection]:
    with app.app_context(), db.transaction(by_key=True) as tx:
        yield tx


def _pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines put together; the first goes alone, so that the download begins at once."""
    held: list[Any] = []
    size, most = 0, 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size > most:
            yield b"".join(held)
            held, size, most = [], 0, PIECE
    yield b"".join(held)
