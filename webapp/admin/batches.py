"""The pages of batches: the list, one batch, and what people do with it. Registered by `init_app` of this room;
nothing else calls it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from flask import abort, current_app, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from webapp import db, wishes
from webapp.admin import history, lists, progress
from webapp.admin.access import actor, acts
from webapp.admin.filters import Asked
from webapp.admin.frame import act, back_to, expose, reading
from webapp.admin.many import Deed, Many
from webapp.admin.payloads import laid_out
from webapp.admin.resending import AGAIN_WORDS, CLASS_WORDS
from webapp.admin.runs import sums
from webapp.batches import causes, holding
from webapp.batches.states import BatchState
from webapp.money import caching
from webapp.money.ledger import totals_of_batches
from webapp.records.escapes import one_line

POLLED = ("in_progress", "canceling", "ingesting")
CANCELLED = ("planned", "submitting", "submit_unknown", "in_progress")


class BatchesPage(Many):
    """Batches, newest first."""

    noun = ("batch", "batches")
    deeds: ClassVar = {
        "cancel": Deed(
            lambda batch_id: wishes.ask_cancel_batch(batch_id, actor=actor()),
            frozenset(CANCELLED),
            "What is unsent is never sent. What is at the API is cancelled there; what it has worked on already is "
            "billed, comes in, and is kept. Those not proved to be ours wait for their proof. Their runs go on.",
            "being cancelled. What is paid for comes in and is kept.",
        )
    }

    def listed(self, tx: Connection, asked: Asked, limit: int) -> list[Any]:
        return list(lists.batches(tx, asked, size=limit)["found"].rows)

    @expose("/")
    def index(self) -> ResponseReturnValue:
        found = lists.batches(reading(), Asked())
        return self.render("desk/batches.html", polled=POLLED, cancelled=CANCELLED, **found)

    @expose("/<row:batch_id>/")
    def details(self, batch_id: int) -> ResponseReturnValue:
        tx, asked = reading(), Asked()
        batch = find(tx, batch_id)
        bar = progress.of_batches(tx, [(batch_id, batch.total)])[batch_id]
        return self.render(
            "desk/batch.html",
            batch=batch,
            asked=asked,
            bar=bar,
            sums=sums(tx, "id", batch_id),
            posts=_posts(tx, batch_id),
            money=totals_of_batches(tx, [batch.api_id]).get(batch.api_id) if batch.api_id else None,
            hits=caching.of_batch(tx, batch.run_id, batch_id) if batch.api_id else None,
            candidates=_candidates(tx, batch),
            failures=causes.of_batch(tx, batch_id) if bar.failed else causes.NONE,
            class_words=CLASS_WORDS | AGAIN_WORDS,
            api_counts=laid_out(batch.api_counts),
            history=history.of(tx, "batch_id", batch_id, asked.row_id("before")),
            stamp=history.stamp(tx, "batch_id", batch_id),
            polled=POLLED,
            cancelled=CANCELLED,
        )

    @expose("/<row:batch_id>/poll", methods=("POST",))
    @acts
    def poll(self, batch_id: int) -> ResponseReturnValue:
        def deed() -> str:
            wishes.ask_poll(batch_id, actor=actor())
            return f"Batch {batch_id} is being looked at now."

        return act(back_to(url_for(".details", batch_id=batch_id)), deed)

    @expose("/<row:batch_id>/cancel", methods=("GET", "POST"))
    @acts
    def cancel(self, batch_id: int) -> ResponseReturnValue:
        back = back_to(url_for(".details", batch_id=batch_id))
        if request.method == "POST":
            unproved = bool(request.form.get("unproved"))

            def deed() -> str:
                wishes.ask_cancel_batch(batch_id, actor=actor(), unproved=unproved)
                return f"Batch {batch_id} is being cancelled. What is paid for comes in and is kept."

            return act(back, deed)
        batch = find(reading(), batch_id)
        return self.render("desk/cancel_batch.html", batch=batch, back=back, cancelled=CANCELLED)

    @expose("/<row:batch_id>/refetch", methods=("GET", "POST"))
    @acts
    def refetch(self, batch_id: int) -> ResponseReturnValue:
        back = back_to(url_for(".details", batch_id=batch_id))
        if request.method == "POST":

            def deed() -> str:
                wishes.ask_refetch(batch_id, actor=actor())
                return f"The results of batch {batch_id} are fetched once more."

            return act(back, deed)
        batch = find(reading(), batch_id)
        return self.render("desk/refetch_batch.html", batch=batch, back=back)

    @expose("/<row:batch_id>/adopt", methods=("GET", "POST"))
    @acts
    def adopt(self, batch_id: int) -> ResponseReturnValue:
        api_id = request.values.get("api_id", "")

        def deed() -> str:
            wishes.ask_adopt(batch_id, api_id, actor=actor())
            return f"Batch {batch_id} is taken for {one_line(api_id, 80)}, until the first line of its results tells."

        return self._decide(batch_id, "adopt", deed)

    @expose("/<row:batch_id>/resend", methods=("GET", "POST"))
    @acts
    def resend(self, batch_id: int) -> ResponseReturnValue:
        def deed() -> str:
            wishes.ask_resend(batch_id, actor=actor())
            return f"Batch {batch_id} is sent again."

        return self._decide(batch_id, "resend", deed)

    @expose("/<row:batch_id>/abandon", methods=("GET", "POST"))
    @acts
    def abandon(self, batch_id: int) -> ResponseReturnValue:
        def deed() -> str:
            wishes.ask_abandon(batch_id, actor=actor())
            return f"Batch {batch_id} is given up: its requests have ended and can be resubmitted."

        return self._decide(batch_id, "abandon", deed)

    @expose("/<row:batch_id>/disown", methods=("GET", "POST"))
    @acts
    def disown(self, batch_id: int) -> ResponseReturnValue:
        def deed() -> str:
            wishes.ask_disown(batch_id, actor=actor())
            return f"Batch {batch_id} is looked for again."

        return self._decide(batch_id, "disown", deed)

    def _decide(self, batch_id: int, verb: str, deed: Callable[[], str]) -> ResponseReturnValue:
        """Ask first, then do it: what becomes of a batch whose POST is unknown."""
        back = back_to(url_for(".details", batch_id=batch_id))
        if request.method == "POST":
            return act(back, deed)
        tx = reading()
        batch = find(tx, batch_id)
        candidates = _candidates(tx, batch)
        chosen = next((one for one in candidates if one.api_id == request.args.get("api_id")), None)
        return self.render(
            "desk/decide_batch.html", batch=batch, verb=verb, candidates=candidates, chosen=chosen, back=back
        )


def find(tx: Connection, batch_id: int) -> Any:
    """A batch with its run and account; answers 404 when there is none."""
    batch = db.row(
        tx,
        """
        SELECT b.id, b.run_id, b.ordinal, b.total, b.body_bytes, b.state, b.state_since, b.reason, b.held, b.proved,
               b.cancel_unproved, coalesce(b.cancel_wanted_at, r.cancel_wanted_at) AS cancel_wanted_at,
               b.api_id, b.processing_status, b.api_counts::text AS api_counts, b.api_created_at, b.api_ended_at,
               b.expires_at, b.polled_at, b.incomplete_since, b.created_at, b.owed, r.task,
               coalesce(a.sandbox, false) AS sandbox, a.base_url,
               (SELECT min(due_at) FROM steps WHERE target_id = b.id AND step IN ('submit', 'poll', 'ingest'))
                   AS next_at,
               (SELECT error FROM steps WHERE target_id = b.id AND step IN ('submit', 'poll', 'ingest', 'process')
                AND failures > 0 ORDER BY failures DESC LIMIT 1) AS trouble
        FROM batches b JOIN runs r ON r.id = b.run_id LEFT JOIN accounts a ON a.id = b.account_id WHERE b.id = :id
        """,
        id=batch_id,
    )
    if batch is None:
        abort(404, f"There is no batch {batch_id}.")
    return batch


def _candidates(tx: Connection, batch: Any) -> list[Any]:
    """What the API's last list showed that an unknown POST may have created."""
    if batch.state != BatchState.SUBMIT_UNKNOWN:
        return []
    settings = current_app.extensions["batchdesk"].settings
    return holding.candidates(tx, settings, batch.id)


def _posts(tx: Connection, batch_id: int) -> list[Any]:
    """The POSTs of a batch, the latest first."""
    return list(
        db.rows(
            tx,
            "SELECT intent_at, armed_at, ended_at, outcome, api_id, error FROM submissions WHERE batch_id = :id "
            "ORDER BY id DESC LIMIT 10",
            id=batch_id,
        )
    )
