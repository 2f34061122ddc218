"""The first page: what is under way, what needs a person, what is done. Registered by `init_app` of this room;
nothing else calls it.
"""

from __future__ import annotations

import time
from typing import Any

from flask import current_app
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from webapp import db
from webapp.admin import charts, history, progress
from webapp.admin.frame import Page, expose, reading
from webapp.admin.health import health
from webapp.admin.strays import count as strays
from webapp.batches.alarms import alarms

OPEN_RUNS = 20
RECENT_RUNS = 8
MOST_NEEDS = 10
STUCK_AFTER = 3  # failures in a row of one step


class Home(Page):
    """Home."""

    @expose("/")
    def index(self) -> ResponseReturnValue:
        tx = reading()
        open_runs, recent = _runs(tx, is_open=True, limit=OPEN_RUNS), _runs(tx, is_open=False, limit=RECENT_RUNS)
        bars = progress.of_runs(tx, [(run.id, run.subjects) for run in (*open_runs, *recent)])
        return self.render(
            "desk/home.html",
            open_runs=open_runs,
            recent=recent,
            bars=bars,
            counts=_counts(tx),
            pending=sum(dict(bars[run.id].parts)["pending"] for run in open_runs),
            paused=[run for run in open_runs if run.state == "paused"],
            held=_held_batches(tx),
            strays=strays(tx),
            failed=_failed_batches(tx),
            stuck=_stuck(tx),
            alarms=alarms(tx),
            health=health(tx),
            spend=charts.spend(tx, sandbox=current_app.extensions["batchdesk"].settings.sandbox),
            answers=charts.answers(tx),
            minute=int(time.time() // 60),
            stamp=history.stamp(tx),
        )


def _runs(tx: Connection, *, is_open: bool, limit: int) -> list[Any]:
    return list(
        db.rows(
            tx,
            "SELECT r.id, r.task, r.subjects, r.state, r.state_since, r.reason, r.owner, d.name AS dataset "
            "FROM runs r JOIN datasets d ON d.id = r.dataset_id "
            "WHERE (r.state IN ('planning', 'running', 'paused')) = :open ORDER BY r.id DESC LIMIT :limit",
            open=is_open,
            limit=limit,
        )
    )


def _counts(tx: Connection) -> Any:
    """How many runs and batches are under way; the open batches have an index of their own."""
    return db.row(
        tx,
        """
        SELECT (SELECT count(*) FROM runs) AS runs,
               (SELECT count(*) FROM runs WHERE state IN ('planning', 'running', 'paused')) AS open_runs,
               count(*) FILTER (WHERE state IN ('in_progress', 'canceling')) AS at_api,
               count(*) FILTER (WHERE state IN ('planned', 'submitting')) AS waiting
        FROM batches WHERE state NOT IN ('done', 'failed', 'discarded')
        """,
    )


def _held_batches(tx: Connection) -> list[Any]:
    """Batches that wait for a person, and those whose POST is not settled yet."""
    return list(
        db.rows(
            tx,
            "SELECT id, run_id, ordinal, total, state, state_since, reason FROM batches "
            "WHERE state NOT IN ('done', 'failed', 'discarded') AND (held OR state = 'submit_unknown') "
            "ORDER BY id DESC LIMIT :limit",
            limit=MOST_NEEDS,
        )
    )


def _failed_batches(tx: Connection) -> list[Any]:
    """Batches that failed this week, and that nothing was sent after."""
    return list(
        db.rows(
            tx,
            """
            SELECT b.id, b.run_id, b.ordinal, b.total, b.state_since, b.reason FROM batches b
            WHERE b.state = 'failed' AND b.state_since > now() - interval '7 days' AND NOT EXISTS (
                SELECT 1 FROM batches later WHERE later.run_id = b.run_id AND later.ordinal > b.ordinal
                AND later.created_at > b.state_since)
            ORDER BY b.id DESC LIMIT :limit
            """,
            limit=MOST_NEEDS,
        )
    )


def _stuck(tx: Connection) -> list[Any]:
    """Steps that break again and again."""
    return list(
        db.rows(
            tx,
            "SELECT step, target_id, failures, error, due_at FROM steps WHERE failures >= :many "
            "ORDER BY failures DESC LIMIT :limit",
            many=STUCK_AFTER,
            limit=MOST_NEEDS,
        )
    )
