"""Pages on which people take records from a plugin's source, or from a run: choose one, fill in its settings, start.
What comes of it is on the page of an upload. The page of datasets takes them over by inheritance.
"""

from __future__ import annotations

from typing import Any

from flask import abort, flash, redirect, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from webapp import db, jobs, wishes
from webapp.admin.access import actor, acts
from webapp.admin.filters import Asked
from webapp.admin.forms import SettingsForm, asked_token, registry
from webapp.admin.frame import Page, expose, reading
from webapp.batches.naming import new_token
from webapp.errors import BatchdeskError, NotFound
from webapp.records import jsontext
from webapp.records.escapes import one_line

LONGEST_NAME = 200


class SourcePages(Page):
    """What people do with sources."""

    @expose("/sources/")
    @acts
    def sources(self) -> str:
        return self.render("desk/sources.html", sources=[one for _, one in sorted(registry().sources.items())])

    @expose("/sources/<source_name>", methods=("GET", "POST"))
    @acts
    def source(self, source_name: str) -> ResponseReturnValue:
        source = registry().sources.get(source_name)
        if source is None:
            abort(404, f"There is no source {one_line(source_name, 60)}.")
        tx, asked = reading(), Asked()
        dataset = _dataset(tx, asked.row_id("dataset"))
        form = SettingsForm.of(source, _stored(tx, source_name, dataset, asked.row_id("upload")))
        title = one_line(request.form.get("name", "").strip(), LONGEST_NAME)
        if request.method == "POST" and form.parse() is not None:
            token = asked_token()
            try:
                upload_id = wishes.ask_source(
                    source_name,
                    form.raw,
                    dataset_name=dataset.name if dataset else title or source.title,
                    dataset_id=dataset.id if dataset else None,
                    actor=actor(),
                    token=token,
                )
            except BatchdeskError as error:
                form.problems.append(str(error))
            else:
                return _onward(upload_id)
        return self.render(
            "desk/source.html",
            asked=asked,
            source=source,
            dataset=dataset,
            form=form,
            title=title or source.title,
            token=request.form.get("token") or new_token(),
        )

    @expose("/<row:dataset_id>/source", methods=("POST",))
    def refresh_from_source(self, dataset_id: int) -> ResponseReturnValue:
        """Compare a dataset with what its source gives now; nothing changes before a person confirms it."""
        _dataset(reading(), dataset_id)
        try:
            upload_id = wishes.ask_source_again(dataset_id, actor=actor(), token=asked_token())
        except NotFound:
            raise
        except BatchdeskError as error:
            flash(str(error), "error")
            return redirect(url_for(".details", dataset_id=dataset_id), 303)
        return _onward(upload_id)

    @expose("/of-run/<row:run_id>", methods=("POST",))
    def of_run(self, run_id: int) -> ResponseReturnValue:
        """Make a dataset of the outputs that a run has now."""
        if db.scalar(reading(), "SELECT id FROM runs WHERE id = :id", id=run_id) is None:
            abort(404, f"There is no run {run_id}.")
        return _onward(wishes.ask_outputs(run_id, actor=actor(), token=asked_token()))


def _onward(upload_id: int) -> ResponseReturnValue:
    if jobs.queue_trouble() is not None:
        flash("It is noted, and waits: the queue (Redis or Valkey) takes nothing just now.", "error")
    return redirect(url_for(".upload", upload_id=upload_id), 303)


def _dataset(tx: Connection, dataset_id: int | None) -> Any:
    """The dataset that is to be refreshed; answers 404 when there is none."""
    if dataset_id is None:
        return None
    found = db.row(
        tx,
        "SELECT id, name, source_name, source_settings::text AS settings FROM datasets WHERE id = :id",
        id=dataset_id,
    )
    if found is None:
        abort(404, f"There is no dataset {dataset_id}.")
    return found


def _stored(tx: Connection, name: str, dataset: Any, upload_id: int | None) -> dict[str, Any] | None:
    """The settings to begin with: of an import that was refused, or of the dataset's last one."""
    text = None
    if upload_id is not None:
        text = db.scalar(
            tx,
            "SELECT source_settings::text FROM uploads WHERE id = :id AND source_name = :name",
            id=upload_id,
            name=name,
        )
    elif dataset is not None and dataset.source_name == name:
        text = dataset.settings
    return None if text is None else dict(jsontext.loads(text))
