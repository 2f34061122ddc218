"""What is done with everything that the filters of the list of requests mean, not only the rows of one page: send
again, process again, build anew, export. The pages of requests take it over by inheritance; links of causes and batches
lead here too, since each of them is a list with filters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from flask import Response, abort, flash, redirect, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from webapp import db, wishes
from webapp.admin import exporting, resending
from webapp.admin.access import actor, acts
from webapp.admin.again import rebuild
from webapp.admin.filters import Asked
from webapp.admin.forms import task_named
from webapp.admin.frame import Page, act, back_to, expose, reading
from webapp.admin.looking import Wanted
from webapp.batches import exports, reprocessing, selecting
from webapp.batches.reprocessing import Which
from webapp.batches.selecting import CAUSE, Meant
from webapp.errors import BatchdeskError

# Filters of lists that are no filter of a selection: there is none yet.
NO_FILTERS: frozenset[str] = frozenset()


def meant_by(wanted: Wanted) -> Meant:
    """The selection of a list's filters: each by its name.

    :raises AssertionError: a filter is not known to selections; what it leaves out would be acted upon.
    """
    known = {one.name for one in fields(Meant)}
    given = {one.name: getattr(wanted, one.name) for one in fields(wanted) if one.name not in NO_FILTERS}
    unknown = {name for name, value in given.items() if name not in known and value not in (None, False)}
    if unknown:
        raise AssertionError(f"filters that no selection knows: {unknown}")
    return Meant(**{name: value for name, value in given.items() if name in known})


def selection(read: Callable[[Asked], Wanted] = Wanted.of) -> Meant:
    """The selection that an address means; a filter that makes no sense ends it, as nothing is done by halves.

    :param read: how the list that it is of reads its filters.
    """
    asked = Asked()
    meant = meant_by(read(asked))
    values: dict[str, Any] = {name: getattr(meant, name) for name in meant.given}
    values["request_id"] = asked.row_id("request")
    cause = request.args.get("cause")
    if cause is not None and "\0" not in cause and len(cause) <= CAUSE:
        values["cause"] = cause  # to the letter, white space and emptiness included
    elif cause is not None:
        asked.problems.append("The cause is none of a failure.")
    if asked.problems:
        abort(400, " ".join(asked.problems))
    return Meant(**values)


class Selected(Page):
    """Actions on what the filters in the address mean."""

    @expose("/resubmit", methods=("GET", "POST"))
    @acts
    def resubmit(self) -> ResponseReturnValue:
        meant, back = selection(), self._back()
        if request.method == "POST":
            return resending.send(meant, back, stay=False)
        return resending.confirm(self, reading(), meant, back=back, chosen=resending.PRESELECTED)

    @expose("/reprocess", methods=("GET", "POST"))
    @acts
    def reprocess_selected(self) -> ResponseReturnValue:
        meant, back = selection(), self._back()
        if request.method == "POST":
            return self._reprocess(meant, back)
        tx = reading()
        run_ids = selecting.runs_meant(tx, meant, with_failures=not meant.within_a_run)
        tasks = [one for (one,) in db.rows(tx, "SELECT DISTINCT task FROM runs WHERE id = ANY(:ids)", ids=run_ids)]
        versions = {name: task.version for name in tasks if (task := task_named(name)) is not None}
        if meant.within_a_run and run_ids:
            counts = reprocessing.answers(tx, run_ids[0], meant)
        else:
            failures = selecting.failures(tx, meant)
            useless = failures.by_class.get("output", 0)
            counts = reprocessing.Answers(0, useless, failures.more)
        return self.render(
            "desk/reprocess_selected.html",
            meant=meant,
            counts=counts,
            versions=versions,
            missing=[name for name in tasks if name not in versions],
            runs=run_ids,
            too_many=selecting.MOST_RUNS if len(run_ids) > selecting.MOST_RUNS else None,
            back=back,
        )

    def _reprocess(self, meant: Meant, back: str) -> ResponseReturnValue:
        which = Which.ALL if request.form.get("which") == Which.ALL else Which.INVALID
        versions = {
            name.removeprefix("version-"): value for name, value in request.form.items() if name.startswith("version-")
        }
        try:
            sent = wishes.ask_reprocess_meant(meant, which, versions=versions, actor=actor())
        except BatchdeskError as error:
            flash(str(error), "error")
        else:
            nothing = "Nothing is processed again: there is no such answer."
            resending.tell(sent, "{} processed again.", nothing, "answer", ("is", "are"))
        return redirect(back, 303)

    @expose("/rebuild", methods=("GET", "POST"))
    @acts
    def rebuild_selected(self) -> ResponseReturnValue:
        meant, back = selection(), self._back()
        run_id = _one_run(reading(), meant)
        if run_id is None:
            words = "A rebuild makes one run of one: narrow the list to a run or batch, then rebuild. Nothing was done."
            return act(back, lambda: words)
        return rebuild(self, run_id, back, meant=meant)

    @expose("/export.<any(jsonl, csv):kind>")
    def export(self, kind: str) -> Response:
        """Each request that is meant, whatever page it would be on."""
        meant = selection()
        return exporting.requests(lambda part: exports.requests(part, meant), kind, "batchdesk-requests")

    def _back(self) -> str:
        asked = Asked()
        Wanted.of(asked)
        return back_to(url_for(".index", **asked.given))


def _one_run(tx: Connection, meant: Meant) -> int | None:
    """The run that all of a selection is in, or None where it may be in several."""
    found = selecting.runs_meant(tx, meant)
    return found[0] if len(found) == 1 else None
