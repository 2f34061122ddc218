"""Planning: what is built and cut, what a record at fault does to the rest, and dying at any point of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox

from webapp import db
from webapp.batches import planning, sharding, steps
from webapp.batches.cutting import Shard
from webapp.errors import InputError

# A task whose own part is what a record says.
ODD = """
import json
from webapp.hooks import InputError, ModelSettings, Task, hookimpl

class Odd(Task[ModelSettings]):
    name = "odd"
    Settings = ModelSettings

    def shared_params(self, settings):
        return settings.base_params()

    def request_params(self, subject, settings):
        how = subject.data.get("how")
        if how == "raise":
            raise RuntimeError(subject.text)
        if how == "input":
            raise InputError(subject.text)
        if how == "mapping":
            return {"messages": [{"role": "user", "content": [{"type": "text", "text": json.dumps(
                dict(subject.data))}]}], "metadata": subject.data["metadata"]}
        if how == "whole":
            return {"messages": [{"role": "user", "content": "x"}], "metadata": subject.data}
        if how == "deep":
            value = {}
            for _ in range(subject.data["depth"]):
                value = {"a": value}
            return {"messages": [{"role": "user", "content": "x"}], "metadata": value}
        return {"messages": [{"role": "user", "content": subject.text}]}

    def process(self, subject, message, settings):
        return {"text": message.text}

@hookimpl
def register_tasks():
    return [Odd()]
"""


class Killed(BaseException):
    """Stands for the worker's death: nothing of ours catches it."""


def cuts(desk: DeskDriver) -> list[tuple[int, int, int]]:
    return [tuple(row) for row in desk.rows("SELECT ordinal, total, body_bytes FROM batches ORDER BY ordinal")]


def plan(desk: DeskDriver, run_id: int) -> None:
    desk.lapse()
    desk.hurry()
    desk.perform("plan", run_id)


def items(desk: DeskDriver) -> list[Any]:
    return desk.rows("SELECT state, failure_class, error, attempts FROM items ORDER BY position")


def test_a_run_is_cut_by_count_into_batches_of_different_totals(desk: DeskDriver, sandbox: Sandbox) -> None:
    desk.change(batch_max_requests=10)
    run_id = desk.run(documents(25))
    assert [total for _, total, _ in cuts(desk)] == [10, 9, 6]
    assert desk.summary(run_id).succeeded == 25
    audit(desk, sandbox)


def test_a_run_is_cut_by_bytes(desk: DeskDriver, sandbox: Sandbox) -> None:
    desk.change(batch_max_bytes=20_000)
    run_id = desk.run(documents(20, size=3000))
    assert len(cuts(desk)) >= 4
    assert all(size <= 20_000 for _, _, size in cuts(desk))
    assert desk.summary(run_id).succeeded == 20
    audit(desk, sandbox)


@pytest.mark.parametrize("after", range(7))
def test_planning_killed_after_any_chunk_cuts_the_same_way(
    desk: DeskDriver, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    desk.change(batch_max_requests=7)
    monkeypatch.setattr(planning, "CHUNK_ROWS", 8)
    whole = desk.start(documents(24))
    plan(desk, whole)
    expected = list(desk.rows("SELECT total FROM batches WHERE run_id = :id ORDER BY ordinal", id=whole))
    run_id = desk.start(documents(24))
    with monkeypatch.context() as patched:
        _die_after(patched, after)
        with pytest.raises(Killed):
            plan(desk, run_id)
    plan(desk, run_id)
    again = list(desk.rows("SELECT total FROM batches WHERE run_id = :id ORDER BY ordinal", id=run_id))
    assert again == expected
    requests = "SELECT count(*) FROM requests r JOIN items i ON i.id = r.item_id WHERE i.run_id = :id"
    assert desk.scalar(requests, id=run_id) == 24


def _die_after(patched: pytest.MonkeyPatch, chunks: int) -> None:
    """End the worker as it begins its next transaction that writes, after so many."""
    left = [chunks]
    progress = steps.Lease.progress

    def counted(self: steps.Lease, tx: Any) -> None:
        if not left[0]:
            raise Killed
        left[0] -= 1
        progress(self, tx)

    patched.setattr(steps.Lease, "progress", counted)


def test_a_chunk_is_committed_whole_or_not_at_all(desk: DeskDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = desk.start(documents(5))
    with monkeypatch.context() as patched:
        patched.setattr(planning, "tally", _killer)
        with pytest.raises(Killed):
            plan(desk, run_id)
    assert desk.scalar("SELECT (SELECT count(*) FROM items) + (SELECT count(*) FROM item_params)") == 0
    with monkeypatch.context() as patched:
        patched.setattr(sharding, "due", _killer)
        with pytest.raises(Killed):
            plan(desk, run_id)
    assert desk.scalar("SELECT (SELECT count(*) FROM batches) + (SELECT count(*) FROM requests)") == 0
    plan(desk, run_id)
    assert cuts(desk)[0][1] == 5


def _killer(*_: Any, **__: Any) -> None:
    raise Killed


def test_the_same_record_cannot_be_planned_twice(desk: DeskDriver) -> None:
    """I5: a duplicate custom_id gave row N the answer of row M; here even the key cannot be there twice."""
    with pytest.raises(Exception, match="uq_subjects_dataset_id_key"):
        desk.start([*documents(2), *documents(1)])
    run_id = desk.start(documents(2))
    plan(desk, run_id)
    with pytest.raises(Exception, match="uq_items_run_id_position"):
        desk.execute(
            "INSERT INTO items (run_id, subject_id, position, size, subject_type) "
            "SELECT run_id, subject_id, position, size, subject_type FROM items LIMIT 1"
        )
    with pytest.raises(Exception, match="uq_requests_item_id_attempt"):
        desk.execute(
            "INSERT INTO requests (batch_id, item_id, attempt, custom_id) SELECT batch_id, item_id, 1, 'x' "
            "FROM requests LIMIT 1"
        )


def test_a_request_too_large_once_built_is_errored_by_name_and_the_rest_runs(
    desk: DeskDriver, sandbox: Sandbox
) -> None:
    """I14: one record over the limit fails alone, and never reaches the API."""
    desk.change(batch_max_bytes=20_000)
    records = documents(4)
    records[2]["text"] = "word " * 5000
    run_id = desk.run(records)
    summary = desk.summary(run_id)
    assert (summary.succeeded, summary.errored) == (3, 1)
    (bad,) = [row for row in desk.outputs(run_id) if row.status == "errored"]
    assert bad.key == "doc-2"
    assert "bytes once built" in (bad.error or "")
    assert bad.attempts == 0
    assert len(sandbox.accepted()) == 3
    assert [row.failure_class for row in items(desk)] == [None, None, "fix", None]
    audit(desk, sandbox)


def test_a_record_whose_own_part_raises_is_errored_and_the_rest_runs(
    desk: DeskDriver, sandbox: Sandbox, tmp_path: Path
) -> None:
    desk.use_plugin(tmp_path / "own", ODD)
    run_id = desk.run(
        [{"key": "a", "text": "fine"}, {"key": "b", "text": "boom", "how": "raise"}, {"key": "c", "text": "no", "how":
         "input"}], task="odd", model="claude-haiku-5-5"
    )  # fmt: skip
    assert [row.status for row in desk.outputs(run_id)] == ["succeeded", "errored", "errored"]
    assert "boom" in (desk.outputs(run_id)[1].error or "")
    audit(desk, sandbox)


@pytest.mark.parametrize("text", ["half \ud800 of a pair", "a \0 in it"])
@pytest.mark.parametrize("how", ["raise", "input"])
def test_a_fault_whose_words_no_text_column_holds_is_told_in_escapes(
    desk: DeskDriver, sandbox: Sandbox, tmp_path: Path, text: str, how: str
) -> None:
    desk.use_plugin(tmp_path / "own", ODD)
    run_id = desk.run(
        [{"key": "a", "text": "fine"}, {"key": "b", "text": text, "how": how}], task="odd", model="claude-haiku-5-5"
    )
    assert [row.status for row in desk.outputs(run_id)] == ["succeeded", "errored"]
    assert "\\u" in (desk.outputs(run_id)[1].error or "")


def test_a_lone_surrogate_in_a_record_makes_it_errored_class_fix(desk: DeskDriver, sandbox: Sandbox) -> None:
    records = documents(3)
    records[1]["text"] += "\ud83d"
    run_id = desk.run(records)
    assert [row.status for row in desk.outputs(run_id)] == ["succeeded", "errored", "succeeded"]
    assert items(desk)[1].failure_class == "fix"
    assert "surrogate" in items(desk)[1].error
    audit(desk, sandbox)


def test_a_run_finishes_when_every_record_fails_at_planning(desk: DeskDriver, sandbox: Sandbox) -> None:
    records = [{"key": f"k{n}", "text": "\udc00"} for n in range(3)]
    run_id = desk.run(records)
    assert desk.status(run_id).state == "finished"
    assert desk.summary(run_id).errored == 3
    assert cuts(desk) == []
    assert sandbox.accepted() == []
    audit(desk, sandbox)


@pytest.mark.parametrize("depth", [300, 2000])
def test_an_own_part_nested_deeply_is_sent_or_errored_but_never_stops_planning(
    desk: DeskDriver, tmp_path: Path, depth: int
) -> None:
    desk.use_plugin(tmp_path / "own", ODD)
    records = [{"key": "a", "text": "fine"}, {"key": "b", "text": "deep", "how": "deep", "depth": depth}]
    run_id = desk.start(records, task="odd", model="claude-haiku-5-5")
    plan(desk, run_id)
    assert desk.status(run_id).state == "running"
    assert items(desk)[0].state == "pending"


def test_a_part_of_the_record_can_be_sent_as_it_is(desk: DeskDriver, tmp_path: Path) -> None:
    """A subject's data is a read-only mapping: handing it on must not fail the record."""
    desk.use_plugin(tmp_path / "own", ODD)
    run_id = desk.start([{"key": "a", "text": "fine", "how": "whole"}], task="odd", model="claude-haiku-5-5")
    plan(desk, run_id)
    assert items(desk)[0].error is None


@pytest.mark.parametrize("message", ["no good", "odd \\ud800 and \\0 words"])
def test_a_task_whose_shared_part_raises_pauses_the_run_and_says_so(
    desk: DeskDriver, tmp_path: Path, message: str
) -> None:
    broken = ODD.replace("return settings.base_params()", f'raise ValueError("{message}")')
    desk.use_plugin(tmp_path / "own", broken)
    run_id = desk.start([{"key": "a", "text": "fine"}], task="odd", model="claude-haiku-5-5")
    status = desk.work_until_over(run_id)
    assert status.state == "paused"
    assert "shared_params raised" in (status.reason or "")


def test_a_run_whose_task_is_gone_pauses_and_goes_on_when_it_is_back(
    desk: DeskDriver, sandbox: Sandbox, tmp_path: Path
) -> None:
    shipped = desk.desk.registry
    run_id = desk.start(documents(3))
    desk.use_plugin(tmp_path / "own", ODD)
    assert desk.work_until_over(run_id).state == "paused"
    desk.desk.registry = shipped
    with db.transaction() as tx:
        from webapp.runs.verbs import resume_run

        resume_run(tx, run_id, actor="tester")
    assert desk.work_until_over(run_id).state == "finished"
    audit(desk, sandbox)


def test_an_import_without_a_record_is_refused(desk: DeskDriver) -> None:
    with pytest.raises(InputError, match="no usable record"):
        desk.start([])
    assert desk.scalar("SELECT count(*) FROM datasets") == 0


def test_a_shard_that_does_not_match_its_requests_is_never_committed(desk: DeskDriver) -> None:
    run_id = desk.start(documents(3))
    plan(desk, run_id)
    with pytest.raises(AssertionError, match="were made where"), db.transaction() as tx:
        sharding._commit(tx, run_id, Shard(2, 100), [0, 1], None)
    assert desk.scalar("SELECT count(*) FROM batches") == 1


@pytest.mark.parametrize(("limit", "value"), [("CHUNK_BYTES", 300), ("CHUNK_SECONDS", 0.0)])
def test_a_chunk_that_grows_too_long_is_committed_and_the_next_begun(
    desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    records = documents(9)
    records[4]["text"] = "\udc00"
    run_id = desk.start(records)
    stored = []
    store = planning._store

    def counted(run_plan: Any, lease: Any, built: Any) -> None:
        stored.append(len(built))
        store(run_plan, lease, built)

    monkeypatch.setattr(planning, limit, value)
    monkeypatch.setattr(planning, "_store", counted)
    desk.work_until_over(run_id)
    assert sum(stored) == 9 and len(stored) > 3
    assert [row.status for row in desk.outputs(run_id)] == ["succeeded"] * 4 + ["errored"] + ["succeeded"] * 4
    audit(desk, sandbox)
