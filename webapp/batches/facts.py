"""What plugins are told of a run, made in one place: sinks, news of finished runs and checks before sending get the
same. Reads only.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.batches.queries import Counts, run_counts
from webapp.batches.states import RunState
from webapp.errors import NotFound
from webapp.hooks import RunFacts
from webapp.money import estimates, estimating
from webapp.money.ledger import run_totals
from webapp.records import jsontext

FAILED = ("errored", "canceled", "expired", "missing", "stopped")


def run_facts(tx: Connection, run_id: int) -> RunFacts:
    """The facts of a run as they are now.

    :raises NotFound: there is no such run.
    """
    run = db.row(
        tx,
        "SELECT r.id, r.task, r.task_version, r.owner, r.state, r.subjects, r.settings::text AS settings, "
        "r.shared::text AS shared, d.name AS dataset, "
        "(SELECT count(*) FROM items i WHERE i.run_id = r.id AND i.attempts > 0) AS requests, "
        "(SELECT count(*) FROM batches b WHERE b.run_id = r.id AND b.state <> 'discarded') AS batches "
        "FROM runs r JOIN datasets d ON d.id = r.dataset_id WHERE r.id = :id",
        id=run_id,
    )
    if run is None:
        raise NotFound(f"There is no run {run_id}.")
    return RunFacts(
        id=run.id,
        task=run.task,
        task_version=run.task_version,
        dataset=run.dataset,
        owner=run.owner,
        state=run.state,
        model=_model(run),
        subjects=run.subjects,
        requests=run.requests,
        batches=run.batches,
        counts=_counts(run, run_counts(tx, [run_id]).get(run_id, Counts())),
        cost_usd=run_totals(tx, run_id).cost_usd,
        estimate_usd=_estimate(tx, run),
        url=f"/runs/{run.id}/",
    )


def _estimate(tx: Connection, run: Any) -> Decimal | None:
    """The top of the range that the run was estimated to cost; before there is one, by answers to the like of it."""
    known = estimating.stored(tx, run.id)
    if known is not None:
        return known.high_usd
    return estimates.likely({run.id: run.requests}, estimates.means(tx, [run.id])).cost_usd


def _model(run: Any) -> str:
    """The model that the shared part names; until it is built, the one of the settings, if they have any."""
    return str(jsontext.loads(run.shared or run.settings).get("model") or "")


def _counts(run: Any, counts: Counts) -> dict[str, int]:
    """Records by status; what has no item yet is pending, and will stay unsent where the run was cancelled."""
    found = {"succeeded": counts.succeeded - counts.invalid, "invalid": counts.invalid}
    found |= {name: getattr(counts, name) for name in FAILED}
    found["pending"] = counts.pending + counts.retrying
    unplanned = run.subjects - counts.total
    found["stopped" if run.state == RunState.CANCELLED else "pending"] += unplanned
    return found
