"""Starting a run: choose a dataset and a task, fill in the settings, see what would be sent, then start it.
Repeating a run is the same page, filled with its settings. The pages of runs take it over by inheritance.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from flask import abort, current_app, flash, redirect, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from webapp import db, jobs, wishes
from webapp.admin import destinations
from webapp.admin.access import actor, acts
from webapp.admin.filters import Asked
from webapp.admin.forms import SettingsForm, asked_token, registry
from webapp.admin.frame import Page, done_reading, expose, reading
from webapp.admin.payloads import laid_out
from webapp.batches import counting
from webapp.batches.desk import Desk
from webapp.batches.naming import new_token
from webapp.delivery.destinations import of_run
from webapp.errors import BatchdeskError, NotFound
from webapp.hooks import Task
from webapp.money import caps
from webapp.money.priming import Prime
from webapp.records import jsontext
from webapp.runs import pilots
from webapp.runs.preview import Preview, preview
from webapp.runs.staleness import Extent, Over, extent
from webapp.runs.verbs import PLAIN, Manner

DATASETS = 20


@dataclass(frozen=True, slots=True)
class Subject:
    """What somebody starts, or schedules: as far as it is chosen.

    :param former: the run that is repeated.
    :param why_not: why the task cannot be asked about the dataset.
    """

    dataset: Any
    task: Task[Any] | None
    former: Any
    why_not: str | None

    @classmethod
    def of(cls, tx: Connection, asked: Asked) -> Subject:
        """As an address asks for it: a dataset, a task, or a run to repeat. Answers 404 for what does not exist."""
        run_id, dataset_id = asked.row_id("repeat"), asked.row_id("dataset")
        former = _run(tx, run_id) if run_id else None
        tasks = dict(registry().tasks)
        name = former.task if former and former.task in tasks else asked.choice("task", sorted(tasks))
        task = tasks.get(name) if name else None
        why_not = None
        if former and task is None:
            why_not = f"The task {former.task} of run {former.id} is not installed: choose another one."
        dataset_id = former.dataset_id if former else dataset_id
        dataset = None if dataset_id is None else find_dataset(tx, dataset_id)
        if dataset is not None and task is not None and dataset.kind not in task.subject_kinds:
            takes = " or ".join(sorted(task.subject_kinds))
            why_not = f"{task.title} takes records of kind {takes}; those of this dataset are of kind {dataset.kind}."
        return cls(dataset, task, former, why_not)

    @property
    def ready(self) -> bool:
        """Whether the settings come next."""
        return self.dataset is not None and self.task is not None and self.why_not is None

    def form(self) -> SettingsForm:
        """The settings' form, filled with those of the run that is repeated."""
        assert self.task is not None
        return SettingsForm.of(self.task, jsontext.loads(self.former.settings) if self.former else None)

    def places(self, tx: Connection) -> list[str]:
        """The destinations of the run that is repeated."""
        return [one.name for one in of_run(tx, self.former.id)] if self.former else []


class RunsStart(Page):
    """The page that starts runs."""

    @expose("/new", methods=("GET", "POST"))
    @acts
    def new(self) -> ResponseReturnValue:
        tx, asked = reading(), Asked()
        chosen, words = Subject.of(tx, asked), asked.text("q")
        if not chosen.ready:
            return self.render("desk/new_run.html", **choosing(tx, chosen, words), asked=asked)
        form, over = chosen.form(), _over()
        manner = _manner(form)
        if request.method == "GET":
            return self._filling(tx, asked, chosen, form, over)
        do = request.form.get("do")
        settings = None if do == "change" else form.parse()
        if settings is None or (form.problems and do != "change"):
            return self._filling(tx, asked, chosen, form, over)
        assert chosen.task is not None
        if do == "start":
            return self._start(tx, asked, chosen, form, over, manner)
        alike = under_way(tx, chosen)
        done_reading()
        try:
            seen = _seen(chosen, settings, over)
        except NotFound as error:
            asked.problems.append(str(error))
            seen = _seen(chosen, settings, over, by_key=False)
        except BatchdeskError as error:
            form.problems.append(str(error))
            return self._filling(reading(), asked, chosen, form, over)
        return self.render(
            "desk/new_run_preview.html",
            asked=asked,
            chosen=chosen,
            form=form,
            over=over,
            to=destinations.chosen(),
            seen=seen,
            payloads=[laid_out(one.line) for one in seen.shown],
            told=laid_out(jsontext.dumps(settings.model_dump(mode="json")).decode()),
            token=request.form.get("token") or new_token(),
            under_way=alike,
            warnings=_warnings(chosen.task.name, seen, manner.cap_usd),
        )

    def _filling(self, tx: Connection, asked: Asked, chosen: Subject, form: SettingsForm, over: Over) -> str:
        return self.render(
            "desk/new_run_settings.html",
            asked=asked,
            chosen=chosen,
            form=form,
            over=over,
            offers=destinations.offered(tx, chosen.places(tx)),
            extents=extents(tx, chosen, form),
        )

    def _start(
        self, tx: Connection, asked: Asked, chosen: Subject, form: SettingsForm, over: Over, manner: Manner
    ) -> ResponseReturnValue:
        assert chosen.task is not None
        token = asked_token()
        try:
            run_id = wishes.ask_start(
                chosen.dataset.id,
                chosen.task.name,
                form.raw,
                over=over,
                actor=actor(),
                token=token,
                to=destinations.chosen(),
                manner=manner,
            )
        except BatchdeskError as error:
            form.problems.append(str(error))
            return self._filling(tx, asked, chosen, form, over)
        flash(f"Run {run_id} is started.", "success")
        if jobs.queue_trouble() is not None:
            flash("It is noted, and waits: the queue (Redis or Valkey) takes nothing just now.", "error")
        return redirect(url_for("runs.details", run_id=run_id), 303)


def choosing(tx: Connection, chosen: Subject, words: str | None) -> dict[str, Any]:
    """What is there to choose from: datasets while there is none, else tasks."""
    tasks = [task for _, task in sorted(registry().tasks.items())]
    if chosen.dataset is not None:
        return {"chosen": chosen, "tasks": tasks, "datasets": None, "words": words}
    kinds = sorted(chosen.task.subject_kinds) if chosen.task else None
    return {"chosen": chosen, "tasks": tasks, "datasets": _datasets(tx, kinds, words), "words": words}


def extents(tx: Connection, chosen: Subject, form: SettingsForm) -> dict[Over, Extent] | None:
    """How many subjects each choice is over, with the settings as they are; None where nothing was asked before, so
    that there is nothing to choose.
    """
    assert chosen.task is not None
    before = db.scalar(
        tx,
        "SELECT EXISTS (SELECT 1 FROM runs WHERE dataset_id = :dataset AND task = :task)",
        dataset=chosen.dataset.id,
        task=chosen.task.name,
    )
    if not before:
        return None
    try:
        settings = registry().parse_settings(chosen.task, form.raw)
    except BatchdeskError:
        return {}
    return {over: extent(tx, chosen.dataset.id, over, chosen.task, settings) for over in Over}


def under_way(tx: Connection, chosen: Subject) -> list[int]:
    """Runs of the task over the dataset that are not over, the latest first."""
    assert chosen.task is not None
    found = db.rows(
        tx,
        "SELECT id FROM runs WHERE dataset_id = :dataset AND task = :task "
        "AND state IN ('planning', 'running', 'paused') ORDER BY id DESC LIMIT 5",
        dataset=chosen.dataset.id,
        task=chosen.task.name,
    )
    return [run_id for (run_id,) in found]


def _over() -> Over:
    """Which subjects, as the form or else the address says."""
    return Over.STALE if request.values.get("over") == Over.STALE else Over.ALL


def _manner(form: SettingsForm) -> Manner:
    """How careful the run is to be, as the form says; what cannot be so is told on the form."""
    cap, pilot = (request.form.get(name, "").strip() for name in ("cap", "pilot"))
    try:
        return Manner(caps.amount(cap) if cap else None, pilots.size(pilot) if pilot else None, _prime())
    except BatchdeskError as error:
        form.problems.append(str(error))
        return PLAIN


def _prime() -> Prime:
    """Whether one request is to go ahead, as the form says."""
    given = request.form.get("prime")
    return Prime(given) if given in list(Prime) else Prime.AUTO


def _warnings(task: str, seen: Preview, cap: Decimal | None) -> list[str]:
    """What caps would say to the run."""
    high, sandbox = seen.forecast.high_usd, current_app.extensions["batchdesk"].settings.sandbox
    return caps.warnings(reading(), task=task, owner=actor(), high_usd=high, limit_usd=cap, sandbox=sandbox)


def _seen(chosen: Subject, settings: Any, over: Over, *, by_key: bool = True) -> Preview:
    assert chosen.task is not None
    key = request.form.get("key", "").strip() if by_key else ""
    desk: Desk = current_app.extensions["batchdesk"]
    count = counting.within(lambda: desk.gateway, counting.PAGE_SECONDS)
    return preview(desk.settings, chosen.dataset.id, chosen.task, settings, over, key or None, count=count)


def find_dataset(tx: Connection, dataset_id: int) -> Any:
    """A dataset with the kind of its records; answers 404 when there is none that holds any."""
    dataset = db.row(
        tx,
        f"SELECT d.id, d.name, d.subjects, d.revision, d.created_at, s.kind {_WITH_KIND} WHERE d.id = :id",
        id=dataset_id,
    )
    if dataset is None:
        abort(404, f"There is no dataset {dataset_id} that holds records.")
    return dataset


_WITH_KIND = """FROM datasets d CROSS JOIN LATERAL (
    SELECT kind FROM subjects WHERE dataset_id = d.id ORDER BY position LIMIT 1) AS s"""


def _datasets(tx: Connection, kinds: list[str] | None, words: str | None) -> list[Any]:
    """The latest datasets whose name holds some words, and whose records are of some kinds."""
    return list(
        db.rows(
            tx,
            f"""
            SELECT d.id, d.name, d.subjects, d.created_at, s.kind {_WITH_KIND}
            WHERE d.subjects > 0 AND (CAST(:words AS text) IS NULL OR strpos(lower(d.name), lower(:words)) > 0)
              AND (CAST(:kinds AS text[]) IS NULL OR s.kind = ANY(CAST(:kinds AS text[])))
            ORDER BY d.id DESC LIMIT :limit
            """,
            words=words,
            kinds=kinds,
            limit=DATASETS,
        )
    )


def _run(tx: Connection, run_id: int) -> Any:
    run = db.row(
        tx,
        "SELECT id, dataset_id, task, task_version, settings::text AS settings FROM runs WHERE id = :id",
        id=run_id,
    )
    if run is None:
        abort(404, f"There is no run {run_id}.")
    return run
