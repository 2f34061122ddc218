"""Sending failures again from anywhere: the confirmation with its counts and likely cost, the click, and the page that
shows what becomes of it. Pages of runs and requests call `confirm` and `send`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from flask import abort, current_app, flash, redirect, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from webapp import db, jobs, wishes
from webapp.admin import history, progress
from webapp.admin.access import actor
from webapp.admin.formats import plural
from webapp.admin.frame import Page, act, back_to, expose, reading
from webapp.batches import resubmissions, selecting
from webapp.batches.naming import new_token
from webapp.batches.resubmissions import MOST_COUNTED
from webapp.batches.selecting import Meant
from webapp.batches.states import FailureClass
from webapp.errors import BatchdeskError
from webapp.money import estimates
from webapp.money.estimates import Estimate
from webapp.wishes import Sent

RUNS_SHOWN = 50
# What a class of failures means for those who think about sending them again.
CLASS_WORDS = {
    FailureClass.RETRY: "The API was busy, slow or out of time. Sending again usually helps.",
    FailureClass.OUTPUT: "An answer came, but is no use. Another answer may be.",
    FailureClass.ACCOUNT: "The key, a permission or the credit was at fault. Mend that first.",
    FailureClass.STOPPED: "Cancelled, or never sent.",
    FailureClass.FIX: "The request itself is at fault: the same request will fail the same way.",
}
AGAIN_WORDS = {"retrying": "Not failed yet: these go out again by themselves."}
PRESELECTED = frozenset({FailureClass.RETRY, FailureClass.OUTPUT, FailureClass.ACCOUNT, FailureClass.STOPPED})
_TOKEN = re.compile("[a-z2-7]{16}")


@dataclass(frozen=True, slots=True)
class Line:
    """Failures of one class in the confirmation."""

    count: int
    cost: Estimate


def confirm(page: Page, tx: Connection, meant: Meant, *, back: str, chosen: Collection[str]) -> str:
    """The page that asks before failures are sent again.

    :param chosen: the classes that are ticked by themselves.
    """
    failures = selecting.failures(tx, meant)
    run_ids = sorted(failures.by_run)
    means = estimates.means(tx, run_ids[: selecting.MOST_RUNS])
    lines = {}
    for kind in CLASS_WORDS:
        of_class = {run: count for (run, one), count in failures.counts.items() if one == kind}
        if of_class:
            lines[kind.value] = Line(sum(of_class.values()), estimates.likely(of_class, means))
    ids = db.array(run_ids or [meant.run_id or 0])
    runs = db.rows(tx, "SELECT id, task, state FROM runs WHERE id = ANY(CAST(:ids AS bigint[])) ORDER BY id", ids=ids)
    made_up = db.scalar(
        tx,
        "SELECT EXISTS (SELECT 1 FROM batches b JOIN accounts a ON a.id = b.account_id "
        "WHERE b.run_id = ANY(CAST(:ids AS bigint[])) AND a.sandbox)",
        ids=ids,
    )
    return page.render(
        "desk/resubmit.html",
        meant=meant,
        lines=lines,
        more=failures.more,
        look=selecting.look(meant),
        runs=runs,
        by_run=failures.by_run,
        cost=estimates.likely(failures.by_run, means),
        chosen=chosen,
        class_words=CLASS_WORDS,
        made_up=made_up or current_app.extensions["batchdesk"].settings.sandbox,
        too_many=selecting.MOST_RUNS if len(run_ids) > selecting.MOST_RUNS else None,
        token=new_token(),
        back=back,
    )


def send(meant: Meant, back: str, *, stay: bool) -> ResponseReturnValue:
    """Send what was confirmed.

    :param stay: go back to where it was asked, rather than to the page that shows its progress.
    """
    classes = [one for one in FailureClass if one.value in request.form.getlist("class")]
    if not classes:
        return act(back, lambda: "No class was ticked: nothing was sent again.")
    asked = request.form.get("token", "")
    token = asked if _TOKEN.fullmatch(asked) else new_token()
    try:
        sent = wishes.ask_resubmit_meant(meant, classes, actor=actor(), token=token)
    except BatchdeskError as error:
        flash(str(error), "error")
        return redirect(back, 303)
    tell(sent, "{} out again as new attempts.", "Nothing was sent again: no failure of these classes is left.")
    if stay or not sent.subjects:
        return redirect(back, 303)
    first = resubmissions.of_token(reading(), token)
    return redirect(url_for("resubmissions.details", wish_id=first, back=back), 303)


def tell(sent: Sent, done: str, nothing: str, noun: str = "failure", verbs: tuple[str, str] = ("goes", "go")) -> None:
    """Say on the next page what became of a click on a selection.

    :param done: the end of the sentence, with room for the verb.
    """
    for words in sent.refused[:3]:
        flash(words, "error")
    if len(sent.refused) > 3:
        flash(f"So it was with {plural(len(sent.refused) - 3, 'more run')}.", "error")
    if not sent.subjects:
        if not sent.refused:
            flash(nothing, "success")
        return
    count = sum(sent.subjects.values())
    number = f"More than {MOST_COUNTED:,} {noun}s" if count > MOST_COUNTED else plural(count, noun)
    where = f"run {next(iter(sent.subjects))}" if len(sent.subjects) == 1 else f"{len(sent.subjects)} runs"
    flash(f"{number} of {where} {done.format(verbs[0] if count == 1 else verbs[1])}", "success")
    if jobs.queue_trouble() is not None:
        flash("It is noted, and waits: the queue (Redis or Valkey) takes nothing just now.", "error")


class ResubmissionsPage(Page):
    """What became of the clicks that sent failures again."""

    def is_visible(self) -> bool:
        """It has no entry in the menu: one comes here by the click, or from a run."""
        return False

    @expose("/")
    def index(self) -> ResponseReturnValue:
        tx = reading()
        latest = resubmissions.latest(tx, None, RUNS_SHOWN)
        bars = progress.of_resubmissions(tx, [wish.id for wish in latest])
        return self.render("desk/resubmissions.html", wishes=latest, bars=bars, stamp=history.stamp(tx))

    @expose("/<row:wish_id>/")
    def details(self, wish_id: int) -> ResponseReturnValue:
        tx = reading()
        found = resubmissions.click(tx, wish_id, RUNS_SHOWN + 1)
        if not found:
            abort(404, f"There is no resubmission {wish_id}.")
        shown = found[:RUNS_SHOWN]
        one = shown[0].run_id if len(found) == 1 else None
        return self.render(
            "desk/resubmission.html",
            wishes=shown,
            more=len(found) > RUNS_SHOWN,
            bars=progress.of_resubmissions(tx, [wish.id for wish in shown]),
            whole=progress.of_click(tx, shown[0].id),
            meant=selecting.read(shown[0].chosen),
            back=back_to(url_for("runs.details", run_id=shown[0].run_id)),
            run_id=one,
            stamp=history.stamp(tx, "run_id" if one else None, one),
        )
