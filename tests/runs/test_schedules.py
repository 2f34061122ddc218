"""Schedules make runs when they are due: once for each time, over what is new or changed, and say what came of it."""

from __future__ import annotations

from typing import Any

import pytest
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox

from webapp import db, wishes
from webapp.batches.alarms import alarms
from webapp.batches.naming import new_token
from webapp.batches.steps import StepName
from webapp.errors import InputError, NotFound, Refused
from webapp.runs import schedules
from webapp.runs.schedules import Wanted
from webapp.runs.staleness import Over

LABELS = {"labels": "alpha,beta"}
NIGHTLY = Wanted("Nightly", Over.STALE, "30 2 * * *", "Europe/Berlin")


def schedule(wanted: Wanted = NIGHTLY, token: str | None = None, **raw: str) -> int:
    return wishes.ask_schedule(1, "classify", raw or LABELS, wanted, actor="ann", token=token or new_token())


def at_its_time(desk: DeskDriver, schedule_id: int, ago: str = "1 second") -> None:
    """Let the time of a schedule have come."""
    desk.execute(
        "UPDATE schedules SET next_at = now() - CAST(:ago AS interval) WHERE id = :id", ago=ago, id=schedule_id
    )
    desk.execute("UPDATE steps SET due_at = now() WHERE step = 'repeat'")
    desk.perform("repeat", schedule_id)


def row(desk: DeskDriver, schedule_id: int) -> Any:
    (found,) = desk.rows("SELECT *, next_at > now() AS ahead FROM schedules WHERE id = :id", id=schedule_id)
    return found


def told(desk: DeskDriver, schedule_id: int) -> list[str]:
    found = desk.rows(
        "SELECT reason FROM events WHERE schedule_id = :id AND run_id IS NULL ORDER BY id", id=schedule_id
    )
    return [reason for (reason,) in found]


def runs(desk: DeskDriver) -> int:
    count: int = desk.scalar("SELECT count(*) FROM runs")
    return count


@pytest.fixture
def failed(desk: DeskDriver, sandbox: Sandbox) -> int:
    """How many of twenty records a first run has no output of; the API is well again."""
    sandbox.configure(invalid_share=0.5)
    run_id = desk.run(documents(20))
    sandbox.configure(invalid_share=0)
    count = desk.summary(run_id).errored
    assert 0 < count < 20
    return count


def test_a_schedule_waits_for_its_time(desk: DeskDriver, failed: int) -> None:
    schedule_id = schedule()
    found = row(desk, schedule_id)
    assert found.ahead and (found.enabled, found.run_id, found.outcome) == (True, None, None)
    due = "SELECT due_at - (SELECT next_at FROM schedules) FROM steps WHERE step = 'repeat' AND target_id = :id"
    assert abs(desk.scalar(due, id=schedule_id).total_seconds()) < 2
    desk.hurry()
    desk.perform("repeat", schedule_id)  # a nudge too early
    assert runs(desk) == 1
    assert abs(desk.scalar(due, id=schedule_id).total_seconds()) < 2, "it waits on"


def test_when_its_time_comes_it_makes_a_run_over_what_has_no_output(
    desk: DeskDriver, sandbox: Sandbox, failed: int
) -> None:
    schedule_id = schedule()
    at_its_time(desk, schedule_id)
    found = row(desk, schedule_id)
    assert found.ahead and found.run_id is not None
    assert found.outcome == f"Run {found.run_id} was made over {failed} subjects."
    (run,) = desk.rows("SELECT * FROM runs WHERE id = :id", id=found.run_id)
    assert (run.schedule_id, run.selected, run.subjects, run.owner) == (schedule_id, True, failed, "ann")
    desk.work_until_over(run.id)
    assert desk.summary(run.id).succeeded == failed
    assert desk.rows("SELECT 1 FROM steps WHERE step = 'repeat' AND due_at > now()"), "the next time is noted"

    at_its_time(desk, schedule_id)
    assert row(desk, schedule_id).outcome == "Skipped: nothing is new or changed."
    assert row(desk, schedule_id).run_id == run.id and runs(desk) == 2
    assert told(desk, schedule_id) == ["Schedule made.", "Skipped: nothing is new or changed."]
    audit(desk, sandbox)


def test_a_schedule_over_all_asks_about_all_each_time(desk: DeskDriver, failed: int) -> None:
    schedule_id = schedule(Wanted("All", Over.ALL, "0 * * * *", "UTC"))
    for _ in range(2):
        at_its_time(desk, schedule_id)
        run_id = row(desk, schedule_id).run_id
        assert desk.status(run_id).subjects == 20
        desk.work_until_over(run_id)
    assert runs(desk) == 3
    desk.execute("UPDATE datasets SET subjects = 0")
    at_its_time(desk, schedule_id)
    assert row(desk, schedule_id).outcome == "Skipped: the dataset holds no record."


def test_a_time_is_skipped_while_the_former_run_is_under_way(desk: DeskDriver, failed: int) -> None:
    schedule_id = schedule()
    at_its_time(desk, schedule_id)
    run_id = row(desk, schedule_id).run_id
    at_its_time(desk, schedule_id)
    assert row(desk, schedule_id).outcome == f"Skipped: run {run_id}, made the last time, is still under way."
    assert row(desk, schedule_id).ahead and runs(desk) == 2


def test_what_was_missed_is_made_up_for_once(desk: DeskDriver, failed: int) -> None:
    schedule_id = schedule(Wanted("Often", Over.ALL, "*/10 * * * *", "UTC"))
    at_its_time(desk, schedule_id, ago="3 days")
    assert row(desk, schedule_id).ahead and runs(desk) == 2
    desk.work_until_over(row(desk, schedule_id).run_id)
    desk.hurry()
    desk.perform_due()
    assert runs(desk) == 2


def test_a_time_makes_one_run_however_often_the_step_is_performed(
    desk: DeskDriver, failed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before its commit it makes none, and then one; performed twice at once it makes one."""
    schedule_id = schedule()

    class Killed(BaseException):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(schedules, "_tell", die)
        with pytest.raises(Killed):
            at_its_time(desk, schedule_id)
    assert runs(desk) == 1
    desk.lapse()
    desk.perform("repeat", schedule_id)
    assert runs(desk) == 2

    seen = None
    with db.transaction() as tx:
        seen = schedules.find(tx, schedule_id)
    wanted = schedules._readable(desk.desk, seen)
    with db.transaction() as tx:
        late = schedules._repeat(tx, type("Seen", (), {**seen._mapping, "next_at": seen.created_at})(), wanted)
    assert late and late > 0 and runs(desk) == 2, "a step that is late finds that the time has been"


def test_a_schedule_that_cannot_go_on_is_stopped_and_a_person_is_told(desk: DeskDriver, failed: int) -> None:
    schedule_id = schedule()
    desk.execute("""UPDATE schedules SET settings = '{"labels": ["one"]}'""")
    at_its_time(desk, schedule_id)
    found = row(desk, schedule_id)
    assert not found.enabled and "at least two labels" in found.problem
    assert found.outcome.startswith("Stopped: Task 'classify' cannot run with these settings")
    assert runs(desk) == 1 and not desk.rows("SELECT 1 FROM steps WHERE step = 'repeat'")
    with db.transaction() as tx:
        (alarm,) = alarms(tx)
    assert alarm.about == f"Schedule {schedule_id}" and "“Nightly” makes no more runs" in alarm.words

    wishes.ask_edit_schedule(schedule_id, LABELS, NIGHTLY, actor="bob")
    wishes.ask_resume_schedule(schedule_id, actor="bob")
    found = row(desk, schedule_id)
    assert found.enabled and found.problem is None and found.ahead
    desk.desk.registry = type(desk.desk.registry)()
    at_its_time(desk, schedule_id)
    assert "There is no task 'classify'" in row(desk, schedule_id).problem


def test_a_pause_is_not_made_up_for(desk: DeskDriver, failed: int) -> None:
    schedule_id = schedule()
    wishes.ask_pause_schedule(schedule_id, actor="bob")
    at_its_time(desk, schedule_id, ago="1 day")
    assert runs(desk) == 1 and not desk.rows("SELECT 1 FROM steps WHERE step = 'repeat'")
    with pytest.raises(Refused, match="paused already"):
        wishes.ask_pause_schedule(schedule_id, actor="bob")
    with db.transaction() as tx:
        assert not alarms(tx), "a person wanted it"
    wishes.ask_resume_schedule(schedule_id, actor="bob")
    assert row(desk, schedule_id).ahead
    with pytest.raises(Refused, match="not paused"):
        wishes.ask_resume_schedule(schedule_id, actor="bob")
    desk.perform_due()
    assert runs(desk) == 1
    assert told(desk, schedule_id) == ["Schedule made.", "Schedule paused.", "Schedule resumed."]


def test_a_schedule_is_changed_and_goes_by_its_new_time(desk: DeskDriver, failed: int) -> None:
    schedule_id = schedule(Wanted("Soon", Over.STALE, "* * * * *", "UTC"))
    later = Wanted("Later", Over.ALL, "0 5 1 1 *", "UTC")
    wishes.ask_edit_schedule(schedule_id, {"labels": "x,y"}, later, actor="bob")
    found = row(desk, schedule_id)
    assert (found.name, found.over, found.cron, found.settings["labels"]) == ("Later", "all", "0 5 1 1 *", ["x", "y"])
    desk.hurry()  # the step is still due when the former time comes
    desk.perform("repeat", schedule_id)
    assert runs(desk) == 1
    left = desk.scalar("SELECT extract(epoch FROM due_at - now()) FROM steps WHERE step = :s", s=StepName.REPEAT)
    assert left > 3600


def test_a_deleted_schedule_makes_no_more_runs_and_leaves_those_it_made(desk: DeskDriver, failed: int) -> None:
    schedule_id = schedule()
    at_its_time(desk, schedule_id)
    run_id = row(desk, schedule_id).run_id
    wishes.ask_delete_schedule(schedule_id, actor="bob")
    desk.hurry()
    desk.perform("repeat", schedule_id)
    assert not desk.rows("SELECT 1 FROM steps WHERE step = 'repeat'")
    desk.work_until_over(run_id)
    assert desk.summary(run_id).succeeded == failed
    assert told(desk, schedule_id)[-1] == "Schedule “Nightly” deleted."
    with pytest.raises(NotFound, match="no schedule"):
        wishes.ask_resume_schedule(schedule_id, actor="bob")


def test_a_schedule_is_made_once_for_each_token_and_not_at_all_where_it_makes_no_sense(
    desk: DeskDriver, failed: int
) -> None:
    token = new_token()
    assert schedule(token=token) == schedule(token=token)
    for wanted in (Wanted("x", Over.ALL, "never", "UTC"), Wanted("x", Over.ALL, "0 0 * * *", "Nowhere")):
        with pytest.raises(InputError):
            schedule(wanted)
    with pytest.raises(InputError, match="at least two"):
        schedule(labels="one")
    with pytest.raises(InputError, match="takes subjects of kind image"):
        wishes.ask_schedule(1, "alt_text", {}, NIGHTLY, actor="ann", token=new_token())
    assert desk.scalar("SELECT count(*) FROM schedules") == 1
