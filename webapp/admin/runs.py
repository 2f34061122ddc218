"""The pages of runs: the list, one run, and what people do with it. Registered by `init_app` of this room;
the pages of batches share its sums and its words for failure classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from flask import Response, abort, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from webapp import db, wishes
from webapp.admin import exporting, history, lists, progress, resending
from webapp.admin.access import actor, acts
from webapp.admin.again import RunsAgain, children
from webapp.admin.capping import RunsCap
from webapp.admin.filters import Asked
from webapp.admin.frame import act, back_to, expose, reading
from webapp.admin.many import Deed, Many
from webapp.admin.payloads import laid_out
from webapp.admin.starting import RunsStart
from webapp.batches import causes, resubmissions
from webapp.batches.naming import new_token
from webapp.batches.queries import outputs_in_parts
from webapp.batches.selecting import Meant
from webapp.batches.states import FailureClass, RunState
from webapp.delivery import deliveries, destinations
from webapp.money import caching, caps, estimating
from webapp.money.ledger import run_totals
from webapp.runs import pilots

BATCHES_SHOWN = 50
RESUBMISSIONS_SHOWN = 5


class RunsPage(RunsStart, RunsAgain, RunsCap, Many):
    """Runs, newest first."""

    noun = ("run", "runs")
    deeds: ClassVar = {
        "pause": Deed(
            lambda run_id: wishes.ask_pause(run_id, actor=actor()),
            frozenset({RunState.PLANNING, RunState.RUNNING}),
            "Nothing more of them is sent until they are resumed. What is at the API goes on, comes in and is billed.",
            "paused: nothing more is sent until resumed.",
        ),
        "resume": Deed(
            lambda run_id: wishes.ask_resume(run_id, actor=actor()),
            frozenset({RunState.PAUSED}),
            "What waits is sent and paid for. If the reason of a pause is not mended, it pauses again.",
            "resumed.",
        ),
        "cancel": Deed(
            lambda run_id: wishes.ask_cancel_run(run_id, actor=actor()),
            frozenset({RunState.PLANNING, RunState.RUNNING, RunState.PAUSED}),
            "What is unsent is never sent. What is at the API is cancelled there; what it has worked on already is "
            "billed, comes in, and is kept. Batches not proved to be ours wait for their proof.",
            "being cancelled. What is paid for comes in and is kept.",
        ),
    }

    def listed(self, tx: Connection, asked: Asked, limit: int) -> list[Any]:
        return list(lists.runs(tx, asked, size=limit)["found"].rows)

    @expose("/")
    def index(self) -> ResponseReturnValue:
        return self.render("desk/runs.html", **lists.runs(reading(), Asked()))

    @expose("/<row:run_id>/")
    def details(self, run_id: int) -> ResponseReturnValue:
        tx, asked = reading(), Asked()
        run = find(tx, run_id)
        bar = progress.of_runs(tx, [(run_id, run.subjects)])[run_id]
        batches = _batches(tx, run_id)
        pilot = pilots.of_run(tx, run_id)
        sent = resubmissions.latest(tx, run_id, RESUBMISSIONS_SHOWN)
        return self.render(
            "desk/run.html",
            run=run,
            at=_standing(tx, run_id),
            asked=asked,
            bar=bar,
            batches=batches[:BATCHES_SHOWN],
            more_batches=len(batches) > BATCHES_SHOWN,
            batch_bars=progress.of_batches(tx, [(batch.id, batch.total) for batch in batches[:BATCHES_SHOWN]]),
            sums=sums(tx, "run_id", run_id),
            money=run_totals(tx, run_id),
            hits=caching.of_run(tx, run_id),
            estimate=estimating.stored(tx, run_id),
            cap=caps.level_of_run(tx, run_id),
            pilot=pilot,
            first_outputs=pilots.first(tx, run_id) if pilot and not pilot.released else [],
            barred_by=caps.bars(tx, run_id) if run.state == RunState.PAUSED else None,
            failures=causes.of_run(tx, run_id) if bar.resubmittable else causes.NONE,
            class_words=resending.CLASS_WORDS | resending.AGAIN_WORDS,
            resubmissions=sent,
            resubmission_bars=progress.of_resubmissions(tx, [wish.id for wish in sent]),
            children=children(tx, run_id),
            deliveries=deliveries.of_run(tx, run_id),
            to_come=[] if run.state in (RunState.FINISHED, RunState.CANCELLED) else destinations.of_run(tx, run_id),
            settings=laid_out(run.settings),
            history=history.of(tx, "run_id", run_id, asked.row_id("before")),
            stamp=history.stamp(tx, "run_id", run_id),
            token=new_token(),
        )

    @expose("/<row:run_id>/cancel", methods=("GET", "POST"))
    @acts
    def cancel(self, run_id: int) -> ResponseReturnValue:
        back = back_to(url_for(".details", run_id=run_id))
        if request.method == "POST":
            unproved = bool(request.form.get("unproved"))

            def deed() -> str:
                wishes.ask_cancel_run(run_id, actor=actor(), unproved=unproved)
                return f"Run {run_id} is being cancelled. What is paid for comes in and is kept."

            return act(back, deed)
        tx = reading()
        run, at = find(tx, run_id), _standing(tx, run_id)
        return self.render("desk/cancel_run.html", run=run, at=at, back=back)

    @expose("/<row:run_id>/pause", methods=("GET", "POST"))
    @acts
    def pause(self, run_id: int) -> ResponseReturnValue:
        back = back_to(url_for(".details", run_id=run_id))
        if request.method == "POST":

            def deed() -> str:
                wishes.ask_pause(run_id, actor=actor())
                return f"Run {run_id} is paused: nothing more of it is sent until it is resumed."

            return act(back, deed)
        tx = reading()
        return self.render("desk/pause_run.html", run=find(tx, run_id), at=_standing(tx, run_id), back=back)

    @expose("/<row:run_id>/resume", methods=("GET", "POST"))
    @acts
    def resume(self, run_id: int) -> ResponseReturnValue:
        back = back_to(url_for(".details", run_id=run_id))
        if request.method == "POST":

            def deed() -> str:
                wishes.ask_resume(run_id, actor=actor())
                return f"Run {run_id} goes on."

            return act(back, deed)
        tx = reading()
        pilot = pilots.of_run(tx, run_id)
        return self.render(
            "desk/resume_run.html",
            run=find(tx, run_id),
            at=_standing(tx, run_id),
            pilot=pilot if pilot and pilot.through and not pilot.released else None,
            back=back,
        )

    @expose("/<row:run_id>/resubmit", methods=("GET", "POST"))
    @acts
    def resubmit(self, run_id: int) -> ResponseReturnValue:
        back = back_to(url_for(".details", run_id=run_id))
        meant = Meant(run_id=run_id)
        if request.method == "POST":
            return resending.send(meant, back, stay=True)
        tx = reading()
        find(tx, run_id)
        wanted = {one for one in request.args.getlist("class") if one in list(FailureClass)}
        chosen = wanted or {one.value for one in resending.PRESELECTED}
        return resending.confirm(self, tx, meant, back=back, chosen=chosen)

    @expose("/<row:run_id>/export.<any(jsonl, csv):kind>")
    def export(self, run_id: int, kind: str) -> Response:
        """What `batchdesk export` writes: each subject once, in input order."""
        find(reading(), run_id)
        return exporting.subjects(lambda part: outputs_in_parts(part, run_id), kind, f"batchdesk-run-{run_id}")


def find(tx: Connection, run_id: int) -> Any:
    """A run with its dataset; answers 404 when there is none."""
    run = db.row(
        tx,
        f"""
        SELECT r.id, r.task, r.task_version, r.settings::text AS settings, r.subjects, r.state, r.state_since,
               r.reason, r.owner, r.created_at, r.pause_wanted_at, r.cancel_wanted_at,
               r.parent_run_id, r.selected, r.schedule_id, r.payloads_dropped_at,
               (SELECT s.name FROM schedules s WHERE s.id = r.schedule_id) AS schedule,
               d.id AS dataset_id, d.name AS dataset, d.source,
               (SELECT extract(epoch FROM s.due_at - now()) FROM steps s
                WHERE s.step = 'resubmit' AND s.target_id = r.id) AS retrying_in,
               {lists.SANDBOX} AS sandbox
        FROM runs r JOIN datasets d ON d.id = r.dataset_id WHERE r.id = :id
        """,  # noqa: S608 - a constant
        id=run_id,
    )
    if run is None:
        abort(404, f"There is no run {run_id}.")
    return run


def _batches(tx: Connection, run_id: int) -> list[Any]:
    return list(
        db.rows(
            tx,
            "SELECT id, ordinal, total, state, state_since, reason, api_id FROM batches WHERE run_id = :id "
            "ORDER BY ordinal DESC LIMIT :limit",
            id=run_id,
            limit=BATCHES_SHOWN + 1,
        )
    )


@dataclass(frozen=True, slots=True)
class Sums:
    """Rule 6 in numbers: what was sent, and what became of it. `sent` is counted apart from the rest."""

    sent: int
    succeeded: int
    errored: int
    canceled: int
    expired: int
    missing: int
    pending: int

    @property
    def parts(self) -> list[tuple[str, int]]:
        names = ["succeeded", "errored", "canceled", "expired", "missing"] + ["pending"] * bool(self.pending)
        return [(name, getattr(self, name)) for name in names]

    @property
    def adds_up(self) -> bool:
        return self.sent == sum(count for _, count in self.parts)


def sums(tx: Connection, column: str, row_id: int) -> Sums:
    """The requests that were sent for a run or batch: those of batches that the API has an id for.

    :param column: `run_id`, or `id` of one batch.
    """
    found = db.row(
        tx,
        f"""
        WITH sent AS (SELECT id, total FROM batches WHERE {column} = :id AND api_id IS NOT NULL)
        SELECT (SELECT coalesce(sum(total), 0) FROM sent) AS sent, coalesce(sum(t.succeeded), 0) AS succeeded,
               coalesce(sum(t.errored), 0) AS errored, coalesce(sum(t.canceled), 0) AS canceled,
               coalesce(sum(t.expired), 0) AS expired, coalesce(sum(t.missing), 0) AS missing,
               coalesce(sum(t.pending), 0) AS pending
        FROM sent JOIN tallies t ON t.batch_id = sent.id AND t.scope = 'requests'
        """,  # noqa: S608 - the column is named by our own code
        id=row_id,
    )
    return Sums(*(int(value) for value in found))


def _standing(tx: Connection, run_id: int) -> Any:
    """What a wish on a run would touch: batches not sent, at the API, unproved, and their requests."""
    return db.row(
        tx,
        """
        SELECT count(*) FILTER (WHERE state = 'planned') AS unsent,
               coalesce(sum(total) FILTER (WHERE state = 'planned'), 0) AS unsent_requests,
               count(*) FILTER (WHERE state IN ('submitting', 'in_progress')) AS at_api,
               coalesce(sum(total) FILTER (WHERE state IN ('submitting', 'in_progress')), 0) AS at_api_requests,
               count(*) FILTER (WHERE state = 'submit_unknown') AS held,
               count(*) FILTER (WHERE NOT proved AND NOT cancel_unproved AND state = 'in_progress') AS unproved
        FROM batches WHERE run_id = :id
        """,
        id=run_id,
    )
