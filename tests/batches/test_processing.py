"""Processing: outputs from stored answers, and what a processor that misbehaves does to itself and to nobody else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox

from webapp import db
from webapp.batches import processing
from webapp.batches.states import FailureClass
from webapp.runs import verbs

# A task whose processor does what the record says.
ODD = """
import time
from enum import StrEnum
from types import MappingProxyType
from webapp.hooks import InvalidOutput, ModelSettings, Task, hookimpl

class Word(StrEnum):
    YES = "yes"

class Odd(Task[ModelSettings]):
    name = "odd"
    version = "7"
    Settings = ModelSettings

    def shared_params(self, settings):
        return settings.base_params()

    def request_params(self, subject, settings):
        return {"messages": [{"role": "user", "content": subject.text}]}

    def process(self, subject, message, settings):
        how = subject.data.get("how", "ok")
        if how == "slow":
            time.sleep(0.3)
        if how == "raise":
            raise ZeroDivisionError("half \\ud800 and \\0")
        if how == "exit":
            raise SystemExit(3)
        if how == "invalid":
            raise InvalidOutput("no \\ud800 use \\0")
        if how == "deep":
            value = []
            for _ in range(5000):
                value = [value]
            return value
        return {
            "object": object(), "set": {1}, "bytes": b"x", "nan": float("nan"), "inf": [float("inf")],
            "key": {1: 2}, "mapping": subject.data, "frozen": MappingProxyType({"a": [MappingProxyType({})]}),
            "tuple": (1, 2), "enum": {Word.YES: Word.YES}, "big": 2**80, "surrogate": "\\ud800", "nul": "\\0",
            "none": None, "ok": {"text": message.text}, "slow": 1, "long": "x" * 3_000_000,
        }[how]

@hookimpl
def register_tasks():
    return [Odd()]
"""
VALID = {
    "mapping": None,
    "frozen": {"a": [{}]},
    "tuple": [1, 2],
    "enum": {"yes": "yes"},
    "big": 2**80,
    "nul": "\0",
    "none": None,
    "long": "x" * 3_000_000,
}
INVALID = ("raise", "exit", "invalid", "object", "set", "bytes", "nan", "inf", "key", "deep")


def records(*how: str) -> list[dict[str, str]]:
    return [{"key": f"{n}-{one}", "text": f"text {n}", "how": one} for n, one in enumerate(how)]


def answered(desk: DeskDriver, tmp_path: Path, *how: str) -> tuple[int, int]:
    """A run whose answers are stored and not processed: (run id, batch id)."""
    desk.use_plugin(tmp_path / "own", ODD)
    run_id = desk.start(records(*how), task="odd", model="claude-haiku-5-5")
    return run_id, desk.perform_until("done")


def test_values_of_every_json_kind_become_outputs(desk: DeskDriver, sandbox: Sandbox, tmp_path: Path) -> None:
    run_id, _ = answered(desk, tmp_path, *VALID, "surrogate", "ok")
    desk.work_until_over(run_id)
    rows = {row.key.partition("-")[2]: row for row in desk.outputs(run_id)}
    assert {row.status for row in rows.values()} == {"succeeded"}
    for how, value in VALID.items():
        text = rows[how].output_json or ""
        if how == "mapping":
            assert orjson.loads(text)["how"] == "mapping"
        elif how == "big":
            assert text == str(value)
        else:
            assert orjson.loads(text) == value
    assert rows["surrogate"].output_json == '"\\ud800"'
    assert desk.scalar("SELECT min(task_version) FROM outputs") == "7"
    audit(desk, sandbox)


def test_a_processor_that_fails_makes_its_record_invalid_and_no_other(
    desk: DeskDriver, sandbox: Sandbox, tmp_path: Path
) -> None:
    run_id, _ = answered(desk, tmp_path, "ok", *INVALID, "ok")
    desk.work_until_over(run_id)
    rows = desk.outputs(run_id)
    assert [row.status for row in rows] == ["succeeded", *["invalid"] * len(INVALID), "succeeded"]
    assert all(row.error for row in rows[1:-1])
    summary = desk.summary(run_id)
    assert (summary.succeeded, summary.invalid) == (2, len(INVALID))
    assert desk.status(run_id).state == "finished"
    audit(desk, sandbox)


def test_deaths_for_another_reason_blame_nobody(
    desk: DeskDriver, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is killed from outside, again and again, before it commits anything."""

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    run_id, batch_id = answered(desk, tmp_path, "ok", "ok", "ok")
    with monkeypatch.context() as patched:
        patched.setattr(processing, "_store", die)
        for _ in range(3):
            with pytest.raises(Killed):
                desk.perform("process", batch_id)
            desk.lapse()
    desk.perform("process", batch_id)
    assert {row.status for row in desk.outputs(run_id)} == {"succeeded"}
    audit(desk, sandbox)


def test_a_slow_processor_gets_on_turn_by_turn(
    desk: DeskDriver, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each turn ends in time, commits what it did and says that there is more."""
    monkeypatch.setattr(processing, "TURN_SECONDS", 0.5)
    monkeypatch.setattr("webapp.batches.steps.LEASE_SECONDS", 0.4)
    run_id, batch_id = answered(desk, tmp_path, *["slow"] * 4)
    desk.perform("process", batch_id)
    done = desk.scalar("SELECT count(*) FROM outputs")
    assert 0 < done < 4
    assert desk.status(run_id).state == "running"
    desk.work_until_over(run_id)
    audit(desk, sandbox)


def test_processing_again_does_nothing_twice(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id = desk.run(documents(4))
    batch_id = desk.scalar("SELECT id FROM batches")
    before = desk.rows("SELECT request_id, value::text, processed_at FROM outputs ORDER BY 1")
    with db.transaction() as tx:
        from webapp.batches.steps import StepName, due

        due(tx, StepName.PROCESS, batch_id)
    desk.perform("process", batch_id)
    assert desk.rows("SELECT request_id, value::text, processed_at FROM outputs ORDER BY 1") == before
    assert desk.status(run_id).state == "finished"
    audit(desk, sandbox)


def test_results_of_a_task_that_is_gone_wait_until_it_is_back(
    desk: DeskDriver, sandbox: Sandbox, tmp_path: Path
) -> None:
    run_id, _ = answered(desk, tmp_path, "ok", "ok")
    here, desk.desk.registry = desk.desk.registry, type(desk.desk.registry)()
    status = desk.work_until_over(run_id)
    assert status.state == "paused" and "cannot be processed" in (status.reason or "")
    desk.desk.registry = here
    with db.transaction() as tx:
        verbs.resume_run(tx, run_id, actor="tester")
    desk.work_until_over(run_id)
    assert desk.summary(run_id).succeeded == 2
    audit(desk, sandbox)


def test_an_answer_that_is_no_use_can_be_asked_for_again(desk: DeskDriver, sandbox: Sandbox, tmp_path: Path) -> None:
    run_id, _ = answered(desk, tmp_path, "ok", "invalid")
    desk.work_until_over(run_id)
    desk.use_plugin(tmp_path / "own", ODD.replace('if how == "invalid"', 'if how == "never"').replace(
        '"none": None', '"none": None, "invalid": "mended"'))  # fmt: skip
    with db.transaction() as tx:
        assert verbs.resubmit_run(tx, run_id, [FailureClass.OUTPUT], actor="tester") == 1
    desk.work_until_over(run_id)
    assert [(row.status, row.attempts) for row in desk.outputs(run_id)] == [("succeeded", 1), ("succeeded", 2)]
    assert desk.outputs(run_id)[1].output_json == '"mended"'
    assert desk.scalar("SELECT count(*) FROM ledger_lines") == 3
    audit(desk, sandbox)


def test_long_outputs_are_stored_a_few_at_a_time(
    desk: DeskDriver, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three million bytes each: never all of a chunk's at once."""
    run_id, _ = answered(desk, tmp_path, *["long"] * 7)
    stored = []
    store = processing._store

    def counted(lease: Any, run_id: int, processor: Any, outputs: Any) -> None:
        stored.append(len(outputs))
        store(lease, run_id, processor, outputs)

    monkeypatch.setattr(processing, "_store", counted)
    desk.work_until_over(run_id)
    assert stored == [3, 3, 1]
    assert desk.summary(run_id).succeeded == 7
    audit(desk, sandbox)
