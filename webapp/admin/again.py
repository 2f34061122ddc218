"""Pages that do things again with the plugin as it is now: process stored answers, rebuild subjects as a child run.
The pages of runs and of requests take these actions over by inheritance.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import abort, current_app, flash, redirect, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from webapp import db, wishes
from webapp.admin.access import actor, acts
from webapp.admin.formats import plural
from webapp.admin.frame import Page, act, back_to, expose, reading
from webapp.batches.desk import ceiling
from webapp.batches.naming import new_token
from webapp.batches.rebuilding import rebuildable
from webapp.batches.reprocessing import Which, reprocessable
from webapp.batches.selecting import Meant
from webapp.batches.states import FailureClass
from webapp.errors import BatchdeskError, NotFound
from webapp.hooks import Registry, Task
from webapp.records import jsontext

# What a class of failures means for those who think about building the requests anew.
REBUILD_WORDS = {
    FailureClass.FIX: "The request itself was at fault: a mended task or other settings may build a better one.",
    FailureClass.OUTPUT: "An answer came, but is no use. Another request may get a better one.",
    FailureClass.RETRY: "The API was at fault. Resubmitting sends the same request again, which is as good.",
    FailureClass.ACCOUNT: "The key, a permission or the credit was at fault. Mend that first.",
    FailureClass.STOPPED: "Cancelled, or never sent.",
}
PRESELECTED = frozenset({FailureClass.FIX, FailureClass.OUTPUT})
_TOKEN = re.compile("[a-z2-7]{16}")


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of a task in a form: its text is read back as the value it has."""

    name: str
    words: str
    text: str


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
        counts, task = reprocessable(tx, run_id), installed(run.task)
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
        if request.method == "POST":
            return rebuild(run_id, back, everything=everything)
        return rebuild_form(self, reading(), run_id, back, everything=everything)


def rebuild_form(
    page: Page, tx: Connection, run_id: int, back: str, *, everything: bool = False, meant: Meant | None = None
) -> str:
    """The page that asks before subjects of a run are built anew.

    :param everything: all subjects, those that succeeded too.
    :param meant: which of its failures; None: all.
    """
    run = _run(tx, run_id)
    task = installed(run.task)
    counts = {} if everything else rebuildable(tx, run_id, most=ceiling(), meant=meant)
    return page.render(
        "desk/rebuild_run.html",
        run=run,
        everything=everything,
        meant=meant or Meant(run_id=run_id),
        counts=counts,
        chosen=PRESELECTED & set(counts) or set(counts),
        class_words=REBUILD_WORDS,
        children=children(tx, run_id),
        task=task,
        settings=_settings(task, run.settings) if task else [],
        token=new_token(),
        back=back,
    )


def rebuild(run_id: int, back: str, *, everything: bool = False, meant: Meant | None = None) -> ResponseReturnValue:
    """Do what `rebuild_form` has asked about."""
    classes = [one for one in FailureClass if one.value in request.form.getlist("class")]
    if not everything and not classes:
        return act(back, lambda: "No class was ticked: nothing was rebuilt.")
    token = request.form.get("token", "")
    if not _TOKEN.fullmatch(token):
        abort(400, "This form is not complete. Open a fresh page and do it again.")
    try:
        wanted = _wanted_settings(reading(), run_id)
        asked = None if everything else classes
        child = wishes.ask_rebuild(run_id, asked, wanted, actor=actor(), token=token, meant=meant)
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
        return self.render("desk/reprocess_request.html", row=row, task=installed(row.task), back=back)


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


def _registry() -> Registry:
    registry: Registry = current_app.extensions["batchdesk"].registry
    return registry


def installed(name: str) -> Task[Any] | None:
    """The installed task, if it is there."""
    try:
        return _registry().task(name)
    except NotFound:
        return None


def _stored(task: Task[Any], stored: str) -> dict[str, Any]:
    """A run's settings, but for those that the task no longer has."""
    return {name: value for name, value in jsontext.loads(stored).items() if name in task.Settings.model_fields}


def _settings(task: Task[Any], stored: str) -> list[Setting]:
    """The settings that a form can change: those whose value can be written as a line of text and read back."""
    values = _stored(task, stored)
    found = []
    for name, field in task.Settings.model_fields.items():
        text = _written(values.get(name, field.get_default(call_default_factory=True)))
        try:
            read = _registry().parse_settings(task, values | {name: text})
        except BatchdeskError:
            changeable = name not in values  # new, and required
        else:
            changeable = name not in values or read.model_dump(mode="json")[name] == values[name]
        if changeable:
            found.append(Setting(name, field.description or "", text))
    return found


def _written(value: Any) -> str:
    """A value as people write it in `--set`."""
    if isinstance(value, list | tuple):
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(value)
        return line.getvalue()
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None or not isinstance(value, str | int | float) else str(value)


def _wanted_settings(tx: Connection, run_id: int) -> Mapping[str, Any]:
    """A run's settings with what the form says of them."""
    run = _run(tx, run_id)
    task = _registry().task(run.task)
    given = {name.removeprefix("set-"): text for name, text in request.form.items() if name.startswith("set-")}
    return _stored(task, run.settings) | given
