"""The pages of schedules: the list, one schedule with its runs, and what people do with them. A schedule is made from a
run, or for a dataset and a task; its settings are filled in as for a run. Registered by `init_app` of this room.
"""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

from flask import abort, flash, redirect, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from webapp import db, wishes
from webapp.admin import destinations as places
from webapp.admin import history, progress
from webapp.admin.access import actor, acts
from webapp.admin.filters import Asked, Cursor, Found, page_of
from webapp.admin.forms import SettingsForm, asked_token, task_named
from webapp.admin.frame import Page, act, back_to, expose, reading
from webapp.admin.payloads import laid_out
from webapp.admin.starting import Subject, choosing, extents, find_dataset
from webapp.admin.timing import ScheduleForm, in_words
from webapp.batches.naming import new_token
from webapp.delivery.destinations import of_schedule
from webapp.errors import BatchdeskError, InputError, NotFound
from webapp.records import jsontext
from webapp.runs.schedules import find
from webapp.runs.timetable import times

PER_PAGE = 25
RUNS_SHOWN = 10
TIMES_SHOWN = 3


class SchedulesPage(Page):
    """Schedules, newest first."""

    @expose("/")
    def index(self) -> ResponseReturnValue:
        tx, asked = reading(), Asked()
        cursor = Cursor.of(asked)
        found = page_of(lambda at: _list(tx, at), cursor, PER_PAGE)
        return self.render("desk/schedules.html", found=found, asked=asked, cursor=cursor, in_words=in_words)

    @expose("/<row:schedule_id>/")
    def details(self, schedule_id: int) -> ResponseReturnValue:
        tx, asked = reading(), Asked()
        schedule = _schedule(tx, schedule_id)
        runs = _runs(tx, schedule_id)
        return self.render(
            "desk/schedule.html",
            schedule=schedule,
            dataset=find_dataset(tx, schedule.dataset_id),
            asked=asked,
            when=in_words(schedule.cron),
            to=of_schedule(tx, schedule_id),
            next_times=_times(tx, schedule.cron, schedule.zone) if schedule.enabled else [],
            runs=runs,
            bars=progress.of_runs(tx, [(run.id, run.subjects) for run in runs]),
            settings=laid_out(schedule.settings),
            history=history.of(tx, "schedule_id", schedule_id, asked.row_id("before")),
            stamp=history.stamp(tx, "schedule_id", schedule_id),
        )

    @expose("/new", methods=("GET", "POST"))
    @acts
    def new(self) -> ResponseReturnValue:
        tx, asked = reading(), Asked()
        chosen, words = Subject.of(tx, asked), asked.text("q")
        if not chosen.ready:
            return self.render("desk/new_run.html", **choosing(tx, chosen, words), asked=asked, scheduling=True)
        assert chosen.task is not None
        form, timing = chosen.form(), ScheduleForm.of(f"{chosen.task.title}, {chosen.dataset.name}")
        if request.method == "POST" and _sound(tx, form, timing) and request.form.get("do") != "look":
            token = asked_token()
            try:
                schedule_id = wishes.ask_schedule(
                    chosen.dataset.id, chosen.task.name, form.raw, timing.wanted, actor=actor(), token=token
                )
            except BatchdeskError as error:
                form.problems.append(str(error))
            else:
                flash(f"Schedule {schedule_id} is on.", "success")
                return redirect(url_for(".details", schedule_id=schedule_id), 303)
        return self._filling(tx, asked, chosen, form, timing, None)

    @expose("/<row:schedule_id>/edit", methods=("GET", "POST"))
    @acts
    def edit(self, schedule_id: int) -> ResponseReturnValue:
        tx, asked = reading(), Asked()
        schedule = _schedule(tx, schedule_id)
        task = task_named(schedule.task)
        if task is None:
            abort(404, f"The task {schedule.task} is not installed: the schedule cannot be changed without it.")
        chosen = Subject(find_dataset(tx, schedule.dataset_id), task, None, None)
        form, timing = SettingsForm.of(task, jsontext.loads(schedule.settings)), ScheduleForm.of_row(schedule)
        if request.method == "POST" and _sound(tx, form, timing) and request.form.get("do") != "look":
            try:
                wishes.ask_edit_schedule(schedule_id, form.raw, timing.wanted, actor=actor())
            except BatchdeskError as error:
                form.problems.append(str(error))
            else:
                flash(f"Schedule {schedule_id} is changed.", "success")
                return redirect(url_for(".details", schedule_id=schedule_id), 303)
        return self._filling(tx, asked, chosen, form, timing, schedule)

    def _filling(
        self, tx: Connection, asked: Asked, chosen: Subject, form: SettingsForm, timing: ScheduleForm, schedule: Any
    ) -> ResponseReturnValue:
        looked = request.method == "POST" and not timing.errors
        return self.render(
            "desk/schedule_settings.html",
            asked=asked,
            chosen=chosen,
            form=form,
            timing=timing,
            schedule=schedule,
            offers=places.offered(tx, _places(tx, chosen, schedule)),
            extents=extents(tx, chosen, form),
            next_times=_times(tx, timing.wanted.cron, timing.wanted.zone) if looked else [],
            token=request.form.get("token") or new_token(),
        )

    @expose("/<row:schedule_id>/pause", methods=("POST",))
    def pause(self, schedule_id: int) -> ResponseReturnValue:
        def deed() -> str:
            wishes.ask_pause_schedule(schedule_id, actor=actor())
            return f"Schedule {schedule_id} is paused: it makes no runs until it is resumed."

        return act(back_to(url_for(".details", schedule_id=schedule_id)), deed)

    @expose("/<row:schedule_id>/resume", methods=("POST",))
    def resume(self, schedule_id: int) -> ResponseReturnValue:
        def deed() -> str:
            wishes.ask_resume_schedule(schedule_id, actor=actor())
            return f"Schedule {schedule_id} goes on at its next time."

        return act(back_to(url_for(".details", schedule_id=schedule_id)), deed)

    @expose("/<row:schedule_id>/delete", methods=("GET", "POST"))
    @acts
    def delete(self, schedule_id: int) -> ResponseReturnValue:
        if request.method == "POST":

            def deed() -> str:
                wishes.ask_delete_schedule(schedule_id, actor=actor())
                return f"Schedule {schedule_id} is deleted. Its runs and their outputs stay."

            return act(url_for(".index"), deed)
        schedule = _schedule(reading(), schedule_id)
        back = back_to(url_for(".details", schedule_id=schedule_id))
        return self.render("desk/delete_schedule.html", schedule=schedule, when=in_words(schedule.cron), back=back)


def _sound(tx: Connection, form: SettingsForm, timing: ScheduleForm) -> bool:
    """Whether both forms can be read; what is wrong is said in them, all at once."""
    settings, timed = form.parse(), timing.validate()
    if timed:
        try:
            _times(tx, timing.wanted.cron, timing.wanted.zone)
        except InputError as error:
            timing.blame(str(error))
            timed = False
    return settings is not None and timed


def _times(tx: Connection, cron: str, zone: str) -> list[str]:
    """The next times, by the clocks of the place."""
    found = times(cron, zone, db.scalar(tx, "SELECT now()"), TIMES_SHOWN)
    return [f"{when.astimezone(ZoneInfo(zone)):%a %Y-%m-%d %H:%M}" for when in found]


def _places(tx: Connection, chosen: Subject, schedule: Any) -> list[str]:
    """The destinations of a schedule, or of the run that it is made from."""
    return [one.name for one in of_schedule(tx, schedule.id)] if schedule else chosen.places(tx)


def _schedule(tx: Connection, schedule_id: int) -> Any:
    """A schedule; answers 404 when there is none."""
    try:
        return find(tx, schedule_id)
    except NotFound as error:
        abort(404, str(error))


def _list(tx: Connection, cursor: Cursor) -> Found:
    rows = db.rows(
        tx,
        f"""
        SELECT s.id, s.name, s.task, s.over, s.cron, s.zone, s.enabled, s.problem, s.next_at, s.run_id, s.outcome,
               s.outcome_at, s.owner, d.name AS dataset
        FROM schedules s JOIN datasets d ON d.id = s.dataset_id
        WHERE {cursor.sql("s.id")} ORDER BY {cursor.order("s.id")} LIMIT :limit
        """,  # noqa: S608 - the cursor writes names that we gave it
        start=cursor.start,
        limit=PER_PAGE + 1,
    )
    return Found(list(rows))


def _runs(tx: Connection, schedule_id: int) -> list[Any]:
    return list(
        db.rows(
            tx,
            "SELECT id, task, state, subjects, reason, created_at FROM runs WHERE schedule_id = :id "
            "ORDER BY id DESC LIMIT :limit",
            id=schedule_id,
            limit=RUNS_SHOWN,
        )
    )
