"""Pages that do things again with the plugin as it is now: process stored answers, rebuild subjects as a child run.
The pages of runs and of requests take these actions over by inheritance.
"""

from __future__ import annotations

from typing import Any

from flask import abort, flash, redirect, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from webapp import db, wishes
from webapp.admin.access import actor, acts
from webapp.admin.formats import plural
from webapp.admin.forms import SettingsForm, asked_token, task_named
from webapp.admin.frame import Page, act, back_to, expose, reading
from webapp.batches.desk import ceiling
from webapp.batches.naming import new_token
from webapp.batches.reprocessing import Which, reprocessable
from webapp.batches.selecting import Meant
from webapp.batches.states import FailureClass
from webapp.errors import BatchdeskError
from webapp.records import jsontext
from webapp.runs.rebuilding import rebuildable

# What a class of failures means for those who think about building the requests anew.
REBUILD_WORDS = {
    FailureClass.FIX: "The request itself was at fault: a mended task or other settings may build a better one.",
    FailureClass.OUTPUT: "An answer came, but is no use. Another request may get a better one.",
    FailureClass.RETRY: "The API was at fault. Resubmitting sends the same request again, which is as good.",
    FailureClass.ACCOUNT: "The key, a permission or the credit was at fault. Mend that first.",
    FailureClass.STOPPED: "Cancelled, or never sent.",
}
PRESELECTED = frozenset({FailureClass.FIX, FailureClass.OUTPUT})


class RunsAgain(Page):
    """What the pages of runs do again."""

    @expose("/<row:run_id>/reprocess", methods=("GET", "POST"))
    @acts
    def reprocess(self, run_id: int) -> ResponseReturnValue:
        back = back_to(url_for(".details", run_id=run_id))
        if request.method == "POST":
            return self._reprocess(run_id, back)
        tx = reading()
        run = _run(tx, run_id)
        counts, task = reprocessable(tx, run_id), task_named(run.task)
        return self.render("desk/reprocess_run.html", run=run, counts=counts, task=task, back=back)

    def _reprocess(self, run_id: int, back: str) -> ResponseReturnValue:
        which = Which.ALL if request.form.get("which") == Which.ALL else Which.INVALID
        version = request.form.get("version", "")

        def deed() -> str:
            count = wishes.ask_reprocess(run_id, which, version=version, actor=actor())
            if not count:
                return "Nothing is processed again: there is no such answer."
            verb = "is" if count == 1 else "are"
            return f"{plural(count, 'answer')} of run {run_id} {verb} processed again, with version {version}."

        return act(back, deed)

    @expose("/<row:run_id>/rebuild", methods=("GET", "POST"))
    @acts
    def rebuild(self, run_id: int) -> ResponseReturnValue:
        back, everything = back_to(url_for(".details", run_id=run_id)), bool(request.values.get("all"))
        return rebuild(self, run_id, back, everything=everything)


def rebuild(
    page: Page, run_id: int, back: str, *, everything: bool = False, meant: Meant | None = None
) -> ResponseReturnValue:
    """Ask before subjects of a run are built anew, and do it once that is confirmed.

    :param everything: all subjects, those that succeeded too.
    :param meant: which of its failures; None: all.
    """
    tx = reading()
    run = _run(tx, run_id)
    task = task_named(run.task)
    form = SettingsForm.of(task, jsontext.loads(run.settings)) if task else None
    ticked = [one for one in FailureClass if one.value in request.form.getlist("class")]
    if request.method == "POST":
        done = _rebuild(run_id, back, None if everything else ticked, form, meant)
        if done is not None:
            return done
    counts, more = ({}, False) if everything else rebuildable(tx, run_id, most=ceiling(), meant=meant)
    return page.render(
        "desk/rebuild_run.html",
        run=run,
        everything=everything,
        meant=meant or Meant(run_id=run_id),
        counts=counts,
        more=more,
        chosen=set(ticked) or PRESELECTED & set(counts) or set(counts),
        class_words=REBUILD_WORDS,
        children=children(tx, run_id),
        task=task,
        form=form,
        token=request.form.get("token") or new_token(),
        back=back,
    )


def _rebuild(
    run_id: int, back: str, classes: list[FailureClass] | None, form: SettingsForm | None, meant: Meant | None
) -> ResponseReturnValue | None:
    """Do it; None when something is wrong with the settings, which the form then says."""
    token = asked_token()
    if classes == []:
        return act(back, lambda: "No class was ticked: nothing was rebuilt.")
    if form is not None and form.parse() is None:
        return None
    try:
        child = wishes.ask_rebuild(run_id, classes, form.raw if form else {}, actor=actor(), token=token, meant=meant)
    except BatchdeskError as error:
        flash(str(error), "error")
        return redirect(back, 303)
    flash(f"Run {child.run_id} builds {plural(child.subjects, 'subject')} of run {run_id} anew.", "success")
    return redirect(url_for("runs.details", run_id=child.run_id), 303)


class RequestsAgain(Page):
    """What the pages of requests do again."""

    @expose("/<row:request_id>/reprocess", methods=("GET", "POST"))
    @acts
    def reprocess(self, request_id: int) -> ResponseReturnValue:
        back = back_to(url_for(".details", request_id=request_id))
        if request.method == "POST":
            version = request.form.get("version", "")

            def deed() -> str:
                wishes.ask_reprocess_request(request_id, version=version, actor=actor())
                return f"The answer of request {request_id} is processed again, with version {version}."

            return act(back, deed)
        row = db.row(
            reading(),
            "SELECT r.id, run.task, o.state, o.task_version FROM requests r JOIN items i ON i.id = r.item_id "
            "JOIN runs run ON run.id = i.run_id LEFT JOIN outputs o ON o.request_id = r.id WHERE r.id = :id",
            id=request_id,
        )
        if row is None:
            abort(404, f"There is no request {request_id}.")
        return self.render("desk/reprocess_request.html", row=row, task=task_named(row.task), back=back)


def children(tx: Connection, run_id: int) -> list[Any]:
    """The runs that rebuild subjects of a run, the latest first."""
    return list(
        db.rows(
            tx,
            "SELECT id, task, task_version, subjects, state, created_at FROM runs WHERE parent_run_id = :id "
            "ORDER BY id DESC LIMIT 20",
            id=run_id,
        )
    )


def _run(tx: Connection, run_id: int) -> Any:
    run = db.row(
        tx,
        "SELECT id, task, task_version, subjects, state, settings::text AS settings FROM runs WHERE id = :id",
        id=run_id,
    )
    if run is None:
        abort(404, f"There is no run {run_id}.")
    return run
