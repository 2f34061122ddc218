"""The pages of caps: the monthly ones, which admins set, and that of a run, which whoever may act sets.
The pages of runs take theirs over by inheritance; the others are registered by `init_app` of this room.
"""

from __future__ import annotations

from typing import Any

from flask import abort, current_app, flash, redirect, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from webapp import db, wishes
from webapp.admin.access import actor, acts, manages
from webapp.admin.frame import Page, act, back_to, expose, reading
from webapp.errors import BatchdeskError
from webapp.money import caps
from webapp.money.caps import Scope
from webapp.money.exposure import usd

MONTHLY = [Scope.ACCOUNT, Scope.TASK, Scope.OWNER]
SUGGESTED = 100  # names that a form offers


class CapsPage(Page):
    """Monthly caps, and what is used of them."""

    def is_visible(self) -> bool:
        return False  # the page of money and those of runs lead here

    @expose("/")
    def index(self) -> ResponseReturnValue:
        tx = reading()
        return self.render("desk/caps.html", levels=caps.levels(tx, sandbox=_sandbox()), accounts=_accounts(tx))

    @expose("/new", methods=("GET", "POST"))
    @manages
    def new(self) -> ResponseReturnValue:
        if request.method != "POST":
            return self._form(None, None)
        scope, target = request.form.get("scope", ""), request.form.get("target", "").strip()
        if scope not in MONTHLY:
            return self._form(None, "Choose what the cap is of.")
        return self._put(None, Scope(scope), target)

    @expose("/<row:cap_id>/edit", methods=("GET", "POST"))
    @manages
    def edit(self, cap_id: int) -> ResponseReturnValue:
        cap = _cap(reading(), cap_id)
        if request.method != "POST":
            return self._form(cap, None)
        return self._put(cap, Scope(cap.scope), cap.target)

    @expose("/<row:cap_id>/remove", methods=("GET", "POST"))
    @manages
    def remove(self, cap_id: int) -> ResponseReturnValue:
        back = back_to(url_for(".index"))
        if request.method == "POST":
            return act(back, lambda: f"Taken away: {wishes.ask_cap_away(cap_id, actor=actor())}.")
        cap = _cap(reading(), cap_id)
        return self.render("desk/remove_cap.html", cap=cap, named=caps.words(cap.scope, cap.target), back=back)

    def _put(self, cap: Any, scope: Scope, target: str) -> ResponseReturnValue:
        try:
            amount = caps.amount(request.form.get("limit", ""))
            refuse = "refuse" in request.form
            wishes.ask_cap(scope, target, amount, actor=actor(), refuse_unpriced=refuse)
        except BatchdeskError as error:
            return self._form(cap, str(error))
        flash(
            f"Set: {caps.words(scope, target)} is {usd(amount)} now. Runs that it has paused go on when resumed.",
            "success",
        )
        return redirect(url_for(".index"), 303)

    def _form(self, cap: Any, fault: str | None) -> str:
        tx = reading()
        return self.render(
            "desk/cap.html",
            cap=cap,
            fault=fault,
            scopes=MONTHLY,
            named=caps.words(cap.scope, cap.target) if cap else None,
            accounts=_accounts(tx),
            names=[] if cap else _names(tx),
        )


class RunsCap(Page):
    """The page of a run's own cap."""

    @expose("/<row:run_id>/cap", methods=("GET", "POST"))
    @acts
    def cap(self, run_id: int) -> ResponseReturnValue:
        back, fault = url_for(".details", run_id=run_id), None
        if request.method == "POST":
            text = request.form.get("limit", "").strip()
            try:
                return self._changed(run_id, text, back)
            except BatchdeskError as error:
                fault = str(error)
        tx = reading()
        run = db.row(tx, "SELECT id, task, state, reason FROM runs WHERE id = :id", id=run_id)
        if run is None:
            abort(404, f"There is no run {run_id}.")
        level = caps.level_of_run(tx, run_id)
        return self.render(
            "desk/run_cap.html", run=run, level=level, barred=caps.bars(tx, run_id), fault=fault, back=back
        )

    def _changed(self, run_id: int, text: str, back: str) -> ResponseReturnValue:
        """Set the cap, or take it away where the field is empty; resume the run if that is wanted with it."""
        if text:
            amount = caps.amount(text)
            wishes.ask_cap(Scope.RUN, str(run_id), amount, actor=actor(), refuse_unpriced="refuse" in request.form)
            flash(f"The cap of run {run_id} is {usd(amount)} now.", "success")
        else:
            level = caps.level_of_run(reading(), run_id)
            if level is not None:
                wishes.ask_cap_away(level.id, actor=actor())
                flash(f"Run {run_id} has no cap of its own now.", "success")
        if "resume" in request.form:
            wishes.ask_resume(run_id, actor=actor())
        return redirect(back, 303)


def _cap(tx: Connection, cap_id: int) -> Any:
    found = db.row(
        tx,
        "SELECT id, scope, target, limit_usd, refuse_unpriced FROM caps WHERE id = :id AND scope <> 'run'",
        id=cap_id,
    )
    if found is None:
        abort(404, f"There is no cap {cap_id}.")
    return found


def _accounts(tx: Connection) -> dict[str, str]:
    """The accounts there are, by id, as people know them."""
    found = db.rows(tx, "SELECT id, base_url, workspace_id FROM accounts ORDER BY id DESC LIMIT :most", most=SUGGESTED)
    return {str(one.id): f"{one.base_url} {one.workspace_id or ''}".strip() for one in found}


def _names(tx: Connection) -> list[str]:
    """Tasks and owners of the latest runs, to choose from."""
    found = db.rows(tx, "SELECT task, owner FROM runs ORDER BY id DESC LIMIT :most", most=SUGGESTED)
    return sorted({one.task for one in found} | {one.owner for one in found})


def _sandbox() -> bool:
    return bool(current_app.extensions["batchdesk"].settings.sandbox)
