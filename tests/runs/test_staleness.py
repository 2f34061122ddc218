"""Which subjects lack an output as new as the settings, and runs over those only."""

from __future__ import annotations

from typing import Any

import pytest
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox

from webapp import db, wishes
from webapp.batches import queries
from webapp.batches.naming import new_token
from webapp.batches.states import FailureClass
from webapp.errors import InputError, NotFound, Refused
from webapp.runs import rebuilding, staleness
from webapp.runs.staleness import Extent, Over

LABELS = {"labels": "alpha,beta"}


def stale(desk: DeskDriver, dataset_id: int = 1, over: Over = Over.STALE, **raw: Any) -> Extent:
    task = desk.desk.registry.task("classify")
    settings = desk.desk.registry.parse_settings(task, raw or LABELS)
    with db.transaction() as tx:
        return staleness.extent(tx, dataset_id, over, task, settings)


def start(over: Over = Over.STALE, token: str | None = None, dataset_id: int = 1, **raw: Any) -> int:
    return wishes.ask_start(
        dataset_id, "classify", raw or LABELS, over=over, actor="tester", token=token or new_token()
    )


def refresh(desk: DeskDriver) -> None:
    """Another revision of dataset 1: doc-0 has changed, doc-1 is gone, doc-new is new."""
    desk.execute("UPDATE datasets SET revision = 2 WHERE id = 1")
    desk.execute("UPDATE subjects SET gone_in = 2 WHERE dataset_id = 1 AND key IN ('doc-0', 'doc-1')")
    for position, key in ((100, "doc-0"), (101, "doc-new")):
        desk.execute(
            "INSERT INTO subjects (dataset_id, position, kind, key, content_hash, size, added_in, data) "
            "SELECT 1, :position, kind, :key, decode('00', 'hex'), size, 2, data FROM subjects WHERE position = 0",
            position=position,
            key=key,
        )
    desk.execute("UPDATE datasets SET subjects = subjects + 0 WHERE id = 1")


def test_what_has_an_output_of_the_same_settings_is_not_stale(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(invalid_share=0.5)
    run_id = desk.run(documents(20))
    sandbox.configure(invalid_share=0)
    failed = {row.key for row in desk.outputs(run_id) if row.status != "succeeded"}
    assert failed and stale(desk).count == len(failed)
    assert stale(desk, labels="alpha,gamma").count == stale(desk, over=Over.ALL).count == 20
    assert stale(desk, labels="alpha,beta", max_tokens="77").count == 20

    again = start()
    assert desk.scalar("SELECT settings->>'labels' FROM runs WHERE id = :id", id=again)
    desk.work_until_over(again)
    assert {row.key for row in desk.outputs(again)} == failed
    assert stale(desk) == Extent(0, True, [])
    with pytest.raises(Refused, match="every subject has an output of these settings already"):
        start()
    assert desk.scalar("SELECT count(*) FROM runs") == 2
    audit(desk, sandbox)


def test_runs_from_before_there_was_a_hash_count_too(desk: DeskDriver) -> None:
    desk.run(documents(4))
    desk.execute("UPDATE runs SET settings_hash = NULL")
    assert stale(desk).count == 0


def test_another_version_of_the_task_makes_every_output_older(desk: DeskDriver) -> None:
    desk.run(documents(4))
    desk.execute("UPDATE runs SET task_version = '0', settings_hash = NULL")
    assert stale(desk).count == 4


def test_the_order_of_settings_makes_no_difference() -> None:
    one = staleness.fingerprint("t", "1", {"a": 1, "b": {"c": 2, "d": "\ud800"}})
    assert one == staleness.fingerprint("t", "1", {"b": {"d": "\ud800", "c": 2}, "a": 1})
    assert one != staleness.fingerprint("t", "1", {"a": 1, "b": {"c": 2, "d": ""}})
    assert one != staleness.fingerprint("t", "2", {"a": 1, "b": {"c": 2, "d": "\ud800"}})


def test_new_and_changed_records_are_stale_and_gone_ones_are_not_asked_about(
    desk: DeskDriver, sandbox: Sandbox
) -> None:
    desk.run(documents(6))
    refresh(desk)
    assert stale(desk).positions == [100, 101]
    assert stale(desk, over=Over.ALL).count == 6
    run_id = start()
    desk.work_until_over(run_id)
    assert [(row.key, row.status) for row in desk.outputs(run_id)] == [("doc-0", "succeeded"), ("doc-new", "succeeded")]
    assert stale(desk).count == 0
    everything = start(Over.ALL)
    desk.work_until_over(everything)
    keys = [row.key for row in desk.outputs(everything)]
    assert keys == ["doc-2", "doc-3", "doc-4", "doc-5", "doc-0", "doc-new"]
    audit(desk, sandbox)


def test_counts_exports_rebuilding_and_resubmission_cover_the_selected_subjects_only(
    desk: DeskDriver, sandbox: Sandbox
) -> None:
    desk.run(documents(6))
    refresh(desk)
    sandbox.configure(invalid_share=1)
    run_id = start()
    desk.work_until_over(run_id)
    sandbox.configure(invalid_share=0)

    summary = desk.summary(run_id)
    assert (summary.requests, summary.errored) == (2, 2)
    assert desk.status(run_id).subjects == desk.status(run_id).counts.total == 2
    with db.transaction() as tx:
        assert rebuilding.rebuildable(tx, run_id, most=3).counts == {FailureClass.FIX: 2}
        assert len(list(queries.outputs(tx, run_id))) == 2
    child = wishes.ask_rebuild(run_id, None, LABELS, actor="tester", token=new_token())
    assert child.subjects == 2
    desk.work_until_over(child.run_id)
    assert desk.summary(child.run_id).succeeded == 2
    assert stale(desk).count == 0, "a rebuilt output is one of these settings"
    assert wishes.ask_resubmit(run_id, [FailureClass.FIX], actor="tester") == 2
    desk.work_until_over(run_id)
    assert desk.summary(run_id).succeeded == 2
    audit(desk, sandbox)


def test_a_cancelled_selection_is_told_of_its_subjects_only(desk: DeskDriver) -> None:
    desk.run(documents(6))
    refresh(desk)
    run_id = start()
    wishes.ask_cancel_run(run_id, actor="tester")
    desk.work_until_over(run_id)
    assert [(row.key, row.status) for row in desk.outputs(run_id)] == [("doc-0", "stopped"), ("doc-new", "stopped")]
    assert desk.summary(run_id).stopped == 2


def test_a_start_that_is_repeated_makes_one_run(desk: DeskDriver) -> None:
    desk.run(documents(3))
    token = new_token()
    assert start(Over.ALL, token) == start(Over.ALL, token)
    assert desk.scalar("SELECT count(*) FROM runs") == 2


def test_what_cannot_be_started_is_refused(desk: DeskDriver) -> None:
    desk.run(documents(3))
    with pytest.raises(NotFound):
        start(dataset_id=99)
    with pytest.raises(InputError, match="at least two"):
        start(labels="one")
    with pytest.raises(InputError, match="takes subjects of kind image"):
        wishes.ask_start(1, "alt_text", {}, over=Over.ALL, actor="tester", token=new_token())
    desk.execute("UPDATE datasets SET subjects = 0")
    with pytest.raises(Refused, match="no subject"):
        start(Over.ALL)
    assert desk.scalar("SELECT count(*) FROM runs") == 1


def test_a_large_dataset_is_counted_by_a_sample(desk: DeskDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staleness, "COUNTED", 100)
    monkeypatch.setattr(staleness, "SAMPLED", 40)
    desk.start(documents(400))
    desk.perform_due()
    desk.execute("UPDATE items SET state = 'succeeded', output_state = 'ok' WHERE position < 200")
    found = stale(desk)
    assert not found.exact and 150 < found.count < 250
    assert len(found.positions) < 40 and found.positions[-1] == 399
    everything = stale(desk, over=Over.ALL)
    assert everything.exact and everything.count == 400 and len(everything.positions) == 40
