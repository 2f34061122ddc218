"""The pages of requests: the list, one request with all that was sent and came back, and the downloads.
What the model wrote is hostile until proved otherwise: it is shown as text, and sent as a file, never as a page.
"""

from __future__ import annotations

from typing import Any

from flask import Response, abort
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from webapp import db
from webapp.admin.again import RequestsAgain
from webapp.admin.filters import Asked
from webapp.admin.frame import expose, reading
from webapp.admin.headers import DOWNLOAD
from webapp.admin.looking import Wanted, count, listed
from webapp.admin.payloads import MOST_SHOWN, Payload, download, laid_out, plain
from webapp.admin.selected import Selected
from webapp.batches.completion import GOES_AGAIN
from webapp.batches.desk import ceiling
from webapp.batches.encoding import join_line, mark_pattern, with_images
from webapp.batches.kept import dropped_on
from webapp.batches.states import FailureClass, RequestState
from webapp.errors import NotFound
from webapp.money.ledger import attempt_totals, total
from webapp.records import jsontext

MOST_PARSED = 8_000_000  # bytes of a result that is read for its text; beyond that its beginning is shown as it is
FORMER_SHOWN = 20
IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
# What can be downloaded of a request, whole and as it is stored.
STORED = {
    "subject": "SELECT s.data::text FROM requests r JOIN items i ON i.id = r.item_id "
    "JOIN subjects s ON s.id = i.subject_id WHERE r.id = :id",
    "result": "SELECT line::text FROM results WHERE request_id = :id",
    "output": "SELECT value::text FROM outputs WHERE request_id = :id",
}


class RequestsPage(RequestsAgain, Selected):
    """Requests, newest first."""

    @expose("/")
    def index(self) -> ResponseReturnValue:
        tx, asked = reading(), Asked()
        wanted = Wanted.of(asked)
        return self.render(
            "desk/requests.html",
            states=list(RequestState),
            classes=list(FailureClass),
            count=count(tx, wanted),
            **listed(tx, asked, wanted),
        )

    @expose("/<row:request_id>/")
    def details(self, request_id: int) -> ResponseReturnValue:
        tx = reading()
        row = _find(tx, request_id)
        costs = attempt_totals(tx, row.item_id)
        return self.render(
            "desk/request.html",
            row=row,
            subject=laid_out(row.subject, row.subject_size),
            params=_params(row),
            result=laid_out(row.line, row.line_size),
            answer=_answer(tx, row),
            output=laid_out(row.output, row.output_size),
            attempts=_attempts(tx, row.item_id),
            costs=costs,
            cost=total(costs.values()),
            former=_former(tx, request_id),
            images=_images(tx, row),
        )

    @expose("/<row:request_id>/<any(subject, result, output):part>.json")
    def stored(self, request_id: int, part: str) -> Response:
        tx = reading()
        text = db.scalar(tx, STORED[part], id=request_id)
        if text is None:
            raise NotFound(f"Request {request_id} has no {part}{_dropped(tx, request_id)}.")
        return download(text, f"request-{request_id}-{part}.json")

    @expose("/<row:request_id>/output-<row:former_id>.json")
    def former(self, request_id: int, former_id: int) -> Response:
        """An output that another has taken the place of."""
        text = db.scalar(
            reading(),
            "SELECT value::text FROM former_outputs WHERE id = :id AND request_id = :request",
            id=former_id,
            request=request_id,
        )
        if text is None:
            raise NotFound(f"Request {request_id} has no such former output.")
        return download(text, f"request-{request_id}-output-{former_id}.json")

    @expose("/<row:request_id>/request.json")
    def sent(self, request_id: int) -> Response:
        """The line of the batch's body, byte for byte, images included."""
        tx = reading()
        row = db.row(
            tx,
            "SELECT r.custom_id, run.token, run.shared::text AS shared, p.own::text AS own FROM requests r "
            "JOIN items i ON i.id = r.item_id JOIN runs run ON run.id = i.run_id "
            "JOIN item_params p ON p.item_id = i.id WHERE r.id = :id",
            id=request_id,
        )
        if row is None or row.shared is None:
            dropped = _dropped(tx, request_id)
            raise NotFound(f"There is no request {request_id}, or nothing of it is stored to be sent{dropped}.")
        own = with_images(row.own.encode(), mark_pattern(row.token), lambda sha256: _content(tx, sha256))
        line = join_line(row.custom_id.encode(), row.shared.encode(), own)
        return download(line, f"request-{request_id}.json")

    @expose("/image/<string(length=64):sha256>")
    def image(self, sha256: str) -> Response:
        """An image that a request sends. Its type is one of four; a browser must not guess another."""
        found = None
        if set(sha256) <= set("0123456789abcdef"):
            found = db.row(
                reading(),
                "SELECT media_type, content FROM blobs WHERE sha256 = decode(:sha256, 'hex')",
                sha256=sha256,
            )
        if found is None or found.media_type not in IMAGE_TYPES:
            abort(404, "There is no such image.")
        response = Response(bytes(found.content), mimetype=found.media_type)
        response.headers["Content-Security-Policy"] = DOWNLOAD
        response.headers["Cache-Control"] = "private, max-age=86400, immutable"
        return response


def _find(tx: Connection, request_id: int) -> Any:
    """A request with the beginnings of its payloads; answers 404 when there is none."""
    row = db.row(
        tx,
        """
        SELECT r.id, r.custom_id, r.item_id, r.attempt, r.state, r.failure_class, r.batch_id, b.ordinal, b.api_id,
               b.state AS batch_state, i.run_id, i.attempts, i.error AS item_error, s.key, s.kind, s.position,
               s.dataset_id, i.subject_id,
               d.name AS dataset, run.task, run.token, run.shared::text AS shared,
               run.payloads_dropped_at AS dropped_at,
               left(s.data::text, :most) AS subject, s.size AS subject_size, encode(s.image, 'hex') AS image,
               left(p.own::text, :most) AS own, octet_length(p.own::text) AS own_size,
               res.kind AS result_kind, res.stop_reason, res.error_type, res.error_message, res.received_at,
               left(res.line::text, :most) AS line, res.size AS line_size,
               o.state AS output_state, o.reason AS output_reason, o.task_version, o.processed_at,
               left(o.value::text, :most) AS output, octet_length(o.value::text) AS output_size
        FROM requests r JOIN items i ON i.id = r.item_id JOIN batches b ON b.id = r.batch_id
        JOIN runs run ON run.id = i.run_id JOIN subjects s ON s.id = i.subject_id
        JOIN datasets d ON d.id = s.dataset_id LEFT JOIN item_params p ON p.item_id = i.id
        LEFT JOIN results res ON res.request_id = r.id LEFT JOIN outputs o ON o.request_id = r.id
        WHERE r.id = :id
        """,
        id=request_id,
        most=MOST_SHOWN + 1,
    )
    if row is None:
        abort(404, f"There is no request {request_id}.")
    return row


def _params(row: Any) -> Payload | None:
    """What is sent: the shared and the own part as one object; images stay marks."""
    if row.own is None or row.shared is None:
        return None
    size = len(row.shared.encode()) + row.own_size - 1
    return laid_out(f"{row.shared[:-1]},{row.own[1:]}", size)


def _images(tx: Connection, row: Any) -> list[str]:
    """The sha256 of the images that the shown part of a request names and that are stored, the subject's own first."""
    marked = mark_pattern(row.token).findall((row.own or "").encode())
    named = list(dict.fromkeys([row.image] * bool(row.image) + [sha256.decode() for sha256 in marked]))
    if not named:
        return []
    kept = "SELECT encode(sha256, 'hex') FROM blobs WHERE sha256 = ANY(CAST(:named AS bytea[]))"
    stored = {sha256 for (sha256,) in db.rows(tx, kept, named=db.array(f"\\x{one}" for one in named))}
    return [sha256 for sha256 in named if sha256 in stored]


def _dropped(tx: Connection, request_id: int) -> str:
    """What is said of a request besides, where the payloads of its run were dropped."""
    at = db.scalar(
        tx,
        "SELECT run.payloads_dropped_at FROM requests r JOIN batches b ON b.id = r.batch_id "
        "JOIN runs run ON run.id = b.run_id WHERE r.id = :id",
        id=request_id,
    )
    return f": it was dropped on {dropped_on(at)}" if at else ""


def _answer(tx: Connection, row: Any) -> Payload | None:
    """The text of the message that came back, as people read it."""
    if row.result_kind != "succeeded" or row.line is None or row.line_size > MOST_PARSED:
        return None
    line = jsontext.loads(db.scalar(tx, STORED["result"], id=row.id))
    content = line["result"]["message"].get("content")
    blocks = content if isinstance(content, list) else []
    texts = [block.get("text") for block in blocks if isinstance(block, dict) and block.get("type") == "text"]
    text = "\n\n".join(text for text in texts if isinstance(text, str))
    return plain(text) if text else None


def _attempts(tx: Connection, item_id: int) -> list[Any]:
    """Every attempt at the item, the first one first."""
    return list(
        db.rows(
            tx,
            f"""
            SELECT r.id, r.attempt, r.custom_id, r.state, r.batch_id, b.ordinal, res.received_at,
                   coalesce(r.attempt = i.attempts AND {GOES_AGAIN}, false) AS retrying, o.state AS output_state,
                   coalesce(r.failure_class, CASE WHEN o.state = 'invalid' THEN 'output' END) AS failure_class,
                   left(coalesce(o.reason, res.error_message), 200) AS error
            FROM requests r JOIN batches b ON b.id = r.batch_id JOIN items i ON i.id = r.item_id
            JOIN runs run ON run.id = i.run_id LEFT JOIN results res ON res.request_id = r.id
            LEFT JOIN outputs o ON o.request_id = r.id WHERE r.item_id = :id ORDER BY r.attempt
            """,  # noqa: S608 - a constant
            id=item_id,
            most=ceiling(),
        )
    )


def _former(tx: Connection, request_id: int) -> list[Any]:
    """The outputs that a request had before, the latest first, each with how its value begins."""
    return list(
        db.rows(
            tx,
            "SELECT id, state, reason, task_version, processed_at, replaced_at, left(value::text, 300) AS value "
            "FROM former_outputs WHERE request_id = :id ORDER BY id DESC LIMIT :limit",
            id=request_id,
            limit=FORMER_SHOWN,
        )
    )


def _content(tx: Connection, sha256: str) -> bytes:
    return bytes(db.scalar(tx, "SELECT content FROM blobs WHERE sha256 = decode(:sha256, 'hex')", sha256=sha256))
