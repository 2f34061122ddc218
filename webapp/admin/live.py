"""Progress without reloading: `/live` answers the bars of the runs and batches that a page shows.
Asked every two seconds by our script while the page is in sight: a few rows by their keys, and no more.
"""

from __future__ import annotations

from flask import Blueprint, Response, get_template_attribute, jsonify, request
from sqlalchemy import Connection

from webapp import db
from webapp.admin import history, progress
from webapp.admin.filters import MOST_DIGITS
from webapp.admin.frame import reading
from webapp.admin.previews import uploading

MOST = 60  # bars that one page shows

blueprint = Blueprint("live", __name__)


@blueprint.get("/live")
def live() -> Response:
    """The bars as drawn, and a stamp that changes when something moved; with `stamp_of` that of one row."""
    tx = reading()
    draw = get_template_attribute("desk/_parts.html", "bar")
    runs = progress.of_runs(tx, _totals(tx, "SELECT id, subjects FROM runs WHERE id = ANY(:ids)", "run"))
    batches = progress.of_batches(tx, _totals(tx, "SELECT id, total FROM batches WHERE id = ANY(:ids)", "batch"))
    bars = {f"run-{run_id}": draw(bar) for run_id, bar in runs.items()}
    bars |= {f"batch-{batch_id}": draw(bar) for batch_id, bar in batches.items()}
    wishes = _ids("resubmission")
    bars |= {f"resubmission-{wish}": draw(bar) for wish, bar in progress.of_resubmissions(tx, wishes).items()}
    bars |= {f"click-{wish}": draw(progress.of_click(tx, wish)) for wish in _ids("click")[:1]}
    draw_upload = get_template_attribute("desk/_uploads.html", "progress")
    bars |= {f"upload-{one.id}": draw_upload(one) for one in uploading(tx, _ids("upload"))}
    return jsonify(bars=bars, stamp=_stamp(tx))


def _totals(tx: Connection, statement: str, name: str) -> list[tuple[int, int]]:
    ids = _ids(name)
    return [(row_id, total) for row_id, total in db.rows(tx, statement, ids=ids)] if ids else []


def _ids(name: str) -> list[int]:
    asked = request.args.getlist(name)[:MOST]
    return [int(one) for one in asked if one.isascii() and one.isdigit() and len(one) <= MOST_DIGITS]


def _stamp(tx: Connection) -> int:
    for column in ("run_id", "batch_id", "upload_id", "schedule_id", "install_id"):
        ids = _ids(f"stamp_{column}")
        if ids:
            return history.stamp(tx, column, ids[0])
    return history.stamp(tx)
