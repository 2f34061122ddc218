"""Rebuilding: a child run over some subjects of a run, built anew with the plugin and settings as they are now."""

from __future__ import annotations

import itertools
import json
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox

from webapp import db, wishes
from webapp.batches import planning, queries
from webapp.batches.naming import new_token
from webapp.batches.states import FailureClass, RunState, move_run
from webapp.errors import InputError, NotFound, Refused
from webapp.runs import rebuilding
from webapp.runs.rebuilding import Child

LABELS = {"labels": "alpha,beta"}


def rebuild(
    run_id: int, *classes: FailureClass, token: str | None = None, settings: dict[str, Any] | None = None
) -> Child:
    """Ask for a child over some classes, or over all subjects."""
    return wishes.ask_rebuild(run_id, classes or None, settings or LABELS, actor="tester", token=token or new_token())


def rebuildable(run_id: int, most: int = 3) -> dict[str, int]:
    with db.transaction() as tx:
        return {name.value: count for name, count in rebuilding.rebuildable(tx, run_id, most=most).counts.items()}


@pytest.fixture
def failed(desk: DeskDriver, sandbox: Sandbox) -> int:
    """A run over forty records of which some failed by a fault of their own; the API is well again."""
    sandbox.configure(invalid_share=0.4)
    run_id = desk.run(documents(40))
    sandbox.configure(invalid_share=0)
    assert 5 < desk.summary(run_id).errored < 35
    return run_id


def keys(desk: DeskDriver, run_id: int, status: str = "errored") -> list[str]:
    return [row.key for row in desk.outputs(run_id) if row.status == status]


def test_a_child_covers_the_failures_of_its_parent_and_nothing_else(
    desk: DeskDriver, sandbox: Sandbox, failed: int
) -> None:
    lost, before = keys(desk, failed), desk.outputs(failed)
    assert rebuildable(failed) == {"fix": len(lost)}
    child = rebuild(failed, FailureClass.FIX)
    assert child.subjects == len(lost)
    assert desk.work_until_over(child.run_id).state == "finished"

    assert [row.key for row in desk.outputs(child.run_id)] == lost, "in input order, each once"
    assert {row.status for row in desk.outputs(child.run_id)} == {"succeeded"}
    summary = desk.summary(child.run_id)
    assert (summary.requests, summary.succeeded, summary.failures) == (len(lost), len(lost), 0)
    counts = desk.status(child.run_id).counts
    assert (counts.total, counts.ok) == (len(lost), len(lost))
    assert desk.outputs(failed) == before, "the parent stays as it is"
    assert desk.scalar("SELECT parent_run_id FROM runs WHERE id = :id", id=child.run_id) == failed
    assert len(sandbox.accepted()) == 40 + len(lost)
    audit(desk, sandbox)


def test_a_child_is_built_with_the_settings_and_the_plugin_as_they_are_now(
    desk: DeskDriver, sandbox: Sandbox, tmp_path: Path
) -> None:
    source = """
from webapp.hooks import InputError, ModelSettings, Task, hookimpl

class Shout(ModelSettings):
    word: str = "one"

class Shouter(Task[Shout]):
    name = "shouter"
    version = "VERSION"
    Settings = Shout

    def shared_params(self, settings):
        return settings.base_params()

    def request_params(self, subject, settings):
        if BROKEN and subject.text.startswith("Text 1 "):
            raise InputError("not this one")
        return {"messages": [{"role": "user", "content": f"{settings.word} VERSION {subject.text}"}]}

    def process(self, subject, message, settings):
        return settings.word

@hookimpl
def register_tasks():
    return [Shouter()]
"""
    desk.use_plugin(tmp_path / "own", source.replace("VERSION", "1").replace("BROKEN", "True"))
    run_id = desk.run(documents(3), task="shouter", word="one")
    assert [row.status for row in desk.outputs(run_id)] == ["succeeded", "errored", "succeeded"]
    desk.use_plugin(tmp_path / "own", source.replace("VERSION", "2").replace("BROKEN", "False"))
    child = rebuild(run_id, FailureClass.FIX, settings={"word": "two"})
    desk.work_until_over(child.run_id)

    assert [(row.key, row.output_json) for row in desk.outputs(child.run_id)] == [("doc-1", '"two"')]
    (run,) = desk.rows("SELECT task_version, settings::text FROM runs WHERE id = :id", id=child.run_id)
    assert run.task_version == "2" and json.loads(run.settings)["word"] == "two"
    own = "SELECT own::text FROM item_params p JOIN items i ON i.id = p.item_id WHERE i.run_id = :id"
    assert "two 2 Text 1 " in desk.scalar(own, id=child.run_id)
    audit(desk, sandbox)


def test_all_subjects_of_a_run_or_of_a_child_can_be_rebuilt(desk: DeskDriver, sandbox: Sandbox, failed: int) -> None:
    child = rebuild(failed, FailureClass.FIX)
    desk.work_until_over(child.run_id)
    whole, part = rebuild(failed), rebuild(child.run_id)
    assert (whole.subjects, part.subjects) == (40, child.subjects)
    for run_id in (whole.run_id, part.run_id):
        desk.work_until_over(run_id)
    assert [row.key for row in desk.outputs(whole.run_id)] == [f"doc-{n}" for n in range(40)]
    assert [row.key for row in desk.outputs(part.run_id)] == keys(desk, failed)
    assert desk.summary(part.run_id).requests == child.subjects
    audit(desk, sandbox)


def test_a_child_that_was_cancelled_while_it_was_planned_lists_its_subjects_as_stopped(
    desk: DeskDriver, sandbox: Sandbox, failed: int
) -> None:
    child = rebuild(failed, FailureClass.FIX)
    wishes.ask_cancel_run(child.run_id, actor="tester")
    assert desk.work_until_over(child.run_id).state == "cancelled"
    assert keys(desk, child.run_id, "stopped") == keys(desk, failed)
    assert desk.summary(child.run_id).stopped == child.subjects
    again = rebuild(child.run_id, FailureClass.STOPPED)
    assert again.subjects == child.subjects
    desk.work_until_over(again.run_id)
    assert desk.summary(again.run_id).succeeded == child.subjects
    audit(desk, sandbox)


def test_subjects_that_were_never_built_count_as_stopped(desk: DeskDriver, sandbox: Sandbox) -> None:
    """A run that was cancelled before it had items: its subjects are still there to be rebuilt."""
    run_id = desk.start(documents(5))
    with db.transaction() as tx:
        move_run(tx, run_id, RunState.CANCELLED, actor="tester")
        db.run(tx, "DELETE FROM steps")
    assert rebuildable(run_id) == {"stopped": 5}
    child = rebuild(run_id, FailureClass.STOPPED)
    desk.work_until_over(child.run_id)
    assert desk.summary(child.run_id).succeeded == 5


@pytest.mark.parametrize("after", range(4))
def test_planning_of_a_child_that_is_killed_goes_on_where_it_was(
    desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, failed: int, after: int
) -> None:
    class Killed(BaseException):
        pass

    store, left = planning._store, [after]

    def mortal(*args: Any) -> None:
        store(*args)
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    child = rebuild(failed, FailureClass.FIX)
    monkeypatch.setattr(planning, "CHUNK_ROWS", 2)
    with monkeypatch.context() as patched:
        patched.setattr(planning, "_store", mortal)
        with pytest.raises(Killed):
            desk.perform("plan", child.run_id)
    desk.lapse()
    desk.work_until_over(child.run_id)
    assert keys(desk, child.run_id, "succeeded") == keys(desk, failed)
    audit(desk, sandbox)


def test_a_double_click_makes_one_child(desk: DeskDriver, sandbox: Sandbox, failed: int) -> None:
    token = new_token()
    first = rebuild(failed, FailureClass.FIX, token=token)
    assert rebuild(failed, FailureClass.FIX, token=token) == first
    desk.work_until_over(first.run_id)
    assert rebuild(failed, FailureClass.FIX, token=token) == first
    assert desk.scalar("SELECT count(*) FROM runs") == 2
    audit(desk, sandbox)


def test_two_clicks_at_once_make_one_child(desk: DeskDriver, sandbox: Sandbox, failed: int) -> None:
    token, made, start = new_token(), [], threading.Barrier(4)

    def click() -> None:
        with desk.app.app_context():
            start.wait(10)
            made.append(rebuild(failed, FailureClass.FIX, token=token))

    threads = [threading.Thread(target=click) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(made) == 4 and len(set(made)) == 1
    assert desk.scalar("SELECT count(*) FROM runs") == 2
    assert desk.scalar("SELECT count(*) FROM selections") == made[0].subjects


def test_what_goes_again_by_itself_is_not_rebuilt(desk: DeskDriver, sandbox: Sandbox) -> None:
    """Else both would be sent, and paid for."""
    desk.change(retry_delay=3600)
    sandbox.configure(overloaded_share=0.3, invalid_share=0.3)
    run_id = desk.start(documents(60))
    desk.perform_until("done")
    by_class = {
        row.failure_class: row.n
        for row in desk.rows("SELECT failure_class, count(*) AS n FROM items WHERE state = 'errored' GROUP BY 1")
    }
    assert set(by_class) == {"retry", "fix"}
    assert rebuildable(run_id) == {"fix": by_class["fix"]}
    assert rebuildable(run_id, most=1) == by_class, "nothing goes again beyond the ceiling"
    with pytest.raises(Refused, match="no subject that failed so"):
        rebuild(run_id, FailureClass.RETRY)
    with pytest.raises(Refused, match="wait for its end"):
        rebuild(run_id)
    assert rebuild(run_id, *FailureClass).subjects == by_class["fix"]


def test_what_cannot_be_rebuilt_is_refused_and_leaves_nothing(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id = desk.start(documents(2))
    with pytest.raises(Refused, match="still being planned"):
        rebuild(run_id, FailureClass.FIX)
    desk.work_until_over(run_id)
    with pytest.raises(Refused, match="no subject that failed so"):
        rebuild(run_id, FailureClass.FIX)
    with pytest.raises(InputError, match="labels"):
        rebuild(run_id, settings={"labels": ""})
    with pytest.raises(NotFound):
        rebuild(99)
    assert desk.scalar("SELECT (SELECT count(*) FROM runs) + (SELECT count(*) FROM selections)") == 1
    audit(desk, sandbox)


def test_a_hundred_thousand_failures_are_rebuilt_without_reading_them(desk: DeskDriver) -> None:
    count = 100_000
    for statement in (
        "INSERT INTO datasets (name, source, text_field, created_by) VALUES ('d', 'd', 'text', 't')",
        f"INSERT INTO subjects (dataset_id, position, kind, key, content_hash, size, data) "
        f"SELECT 1, n, 'document', 'doc-' || n, '', 2, '{{}}' FROM generate_series(0, {count}) n",
        f"INSERT INTO runs (dataset_id, task, task_version, settings, token, subjects, owner, state, planned_at) "
        f"SELECT 1, 'classify', '1', '{{}}', 't', {count + 1}, 't', 'finished', now()",
        f"INSERT INTO items (run_id, subject_id, position, size, attempts, subject_type, state, failure_class) "
        f"SELECT 1, 1 + n, n, 2, 1, 'document', 'errored', CASE WHEN n = 7 THEN 'retry' ELSE 'fix' END "
        f"FROM generate_series(0, {count}) n",
    ):
        desk.execute(statement)
    tracemalloc.start()
    try:
        child = rebuild(1, FailureClass.FIX)
        with db.transaction(by_key=True) as tx:
            first = [row.key for row in itertools.islice(queries.outputs(tx, child.run_id), 9)]
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert child.subjects == desk.scalar("SELECT count(*) FROM selections") == count
    assert first == [f"doc-{n}" for n in (0, 1, 2, 3, 4, 5, 6, 8, 9)]
    assert most < 8_000_000
