"""The page of events: who did what, when, and (for admins) from where; and its download, as JSONL or CSV.
Registered by `init_app` of this room.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from typing import Any

from flask import Response, stream_with_context
from flask.typing import ResponseReturnValue

from webapp.admin import eventlist
from webapp.admin.access import manages
from webapp.admin.eventlist import PER_PAGE, WINDOW, Wanted, kinds
from webapp.admin.filters import Asked, Cursor, page_of
from webapp.admin.frame import Page, expose, reading
from webapp.admin.headers import DOWNLOAD
from webapp.db import db
from webapp.records.exporting import cell
from webapp.records.jsontext import dumps

EXPORTED_AT_ONCE = 1_000  # events read, and sent, at a time
COLUMNS = ("id", "at", "kind", "who", "address", "run", "batch", "about", "which", "from", "to", "words")


class EventsPage(Page):
    """Events, newest first."""

    @expose("/")
    def index(self) -> ResponseReturnValue:
        tx, asked = reading(), Asked()
        cursor = Cursor.of(asked)
        offered = kinds(tx)
        wanted = Wanted.of(asked, offered)
        return self.render(
            "desk/events.html",
            found=page_of(lambda at: eventlist.find(tx, wanted, at), cursor, PER_PAGE),
            asked=asked,
            cursor=cursor,
            kinds=offered,
            window=WINDOW,
        )

    @expose("/export.<any(jsonl, csv):form>")
    @manages
    def export(self, form: str) -> ResponseReturnValue:
        """All events that the filters leave, in flat memory."""
        tx, asked = reading(), Asked()
        wanted = Wanted.of(asked, kinds(tx))
        if asked.problems:
            return Response("\n".join(asked.problems) + "\n", 400, mimetype="text/plain")
        # They are read page by page on connections of their own; this one is not kept meanwhile.
        db.session.rollback()
        lines, kind = FORMS[form]
        rows = (row for page in eventlist.pages(wanted, EXPORTED_AT_ONCE) for row in page)
        response = Response(stream_with_context(_in_pieces(lines(rows))), mimetype=kind)
        response.headers["Content-Disposition"] = f"attachment; filename=events.{form}"
        response.headers["Content-Security-Policy"] = DOWNLOAD
        return response


def _values(event: Any) -> tuple[Any, ...]:
    return (
        *(event.id, event.at.isoformat(), event.kind, event.actor, event.address, event.run_id, event.batch_id),
        *(event.target_kind, event.target, event.from_state, event.to_state, event.reason),
    )


def _jsonl(events: Iterator[Any]) -> Iterator[bytes]:
    for event in events:
        yield dumps(dict(zip(COLUMNS, _values(event), strict=True))) + b"\n"


def _csv(events: Iterator[Any]) -> Iterator[bytes]:
    """Every cell quoted, and none of them a formula."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for event in events:
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()
        writer.writerow([cell(value) if isinstance(value, str) else value for value in _values(event)])
    yield buffer.getvalue().encode()


def _in_pieces(lines: Iterator[bytes], size: int = 65_536) -> Iterator[bytes]:
    """Lines put together, so that a server sends some thousands of them at a time."""
    piece = bytearray()
    for line in lines:
        piece += line
        if len(piece) >= size:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


FORMS: dict[str, tuple[Callable[[Iterator[Any]], Iterator[bytes]], str]] = {
    "jsonl": (_jsonl, "application/x-ndjson"),
    "csv": (_csv, "text/csv"),
}
