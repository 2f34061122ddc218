"""Processing again: with the version that was asked for, without the API, once, and with what was before kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox

from webapp import db, wishes
from webapp.batches import processing
from webapp.batches.reprocessing import Which
from webapp.batches.states import FailureClass
from webapp.errors import NotFound, Refused
from webapp.runs import verbs

# Version 1 finds the records of two kinds no use; each further version has its own opinion.
OPINIONS = """
from webapp.hooks import InvalidOutput, ModelSettings, Task, hookimpl

class Opinion(Task[ModelSettings]):
    name = "opinion"
    version = "VERSION"
    Settings = ModelSettings

    def shared_params(self, settings):
        return settings.base_params()

    def request_params(self, subject, settings):
        return {"messages": [{"role": "user", "content": subject.text}]}

    def process(self, subject, message, settings):
        if subject.data["kind"] in USELESS:
            raise InvalidOutput("no use to version VERSION")
        return {"by": "VERSION"}

@hookimpl
def register_tasks():
    return [Opinion()]
"""


def install(desk: DeskDriver, tmp_path: Path, version: str, *useless: str) -> None:
    source = OPINIONS.replace("VERSION", version).replace("USELESS", repr(useless))
    desk.use_plugin(tmp_path / "own", source)


def records(*kinds: str) -> list[dict[str, Any]]:
    return [{**one, "kind": kind} for one, kind in zip(documents(len(kinds)), kinds, strict=True)]


@pytest.fixture
def run_id(desk: DeskDriver, tmp_path: Path) -> int:
    """A finished run of three kinds of records, two each, of which version 1 finds b and c no use."""
    install(desk, tmp_path, "1", "b", "c")
    return desk.run(records("a", "b", "c", "a", "b", "c"), task="opinion", model="claude-haiku-5-5")


def work(desk: DeskDriver) -> None:
    """Perform what is due until nothing is."""
    for _ in range(50):
        if not desk.perform_due():
            return
    raise AssertionError(desk.rows("SELECT * FROM steps"))


def standing(desk: DeskDriver, run_id: int) -> list[str]:
    return [f"{row.status} {row.output_json or row.error}" for row in desk.outputs(run_id)]


def again(desk: DeskDriver, run_id: int, which: Which, version: str) -> int:
    count = wishes.ask_reprocess(run_id, which, version=version, actor="tester")
    work(desk)
    return count


GOOD, BAD = 'succeeded {"by":"%s"}', "invalid no use to version %s"


def test_a_mended_processor_makes_what_was_no_use_useful_and_the_reverse(
    desk: DeskDriver, sandbox: Sandbox, tmp_path: Path, run_id: int
) -> None:
    assert standing(desk, run_id) == [GOOD % 1, BAD % 1, BAD % 1] * 2
    calls = len(sandbox.accepted())
    install(desk, tmp_path, "2", "a", "c")
    assert again(desk, run_id, Which.ALL, "2") == 6

    assert standing(desk, run_id) == [BAD % 2, GOOD % 2, BAD % 2] * 2
    summary, counts = desk.summary(run_id), desk.status(run_id).counts
    assert (summary.succeeded, summary.invalid) == (2, 4) == (counts.ok, counts.invalid)
    assert desk.status(run_id).state == "finished"
    assert len(sandbox.accepted()) == calls and desk.scalar("SELECT count(*) FROM ledger_lines") == 6
    former = desk.rows(
        "SELECT f.state, f.task_version, f.value::text, f.reason, f.processed_at < f.replaced_at AS before "
        "FROM former_outputs f JOIN requests r ON r.id = f.request_id ORDER BY r.id"
    )
    first = [("ok", "1", '{"by":"1"}', None, True), *[("invalid", "1", None, "no use to version 1", True)] * 2]
    assert [tuple(row) for row in former] == first * 2
    audit(desk, sandbox)


def test_only_what_is_no_use_is_processed_again_if_that_is_what_was_asked(
    desk: DeskDriver, sandbox: Sandbox, tmp_path: Path, run_id: int
) -> None:
    install(desk, tmp_path, "2", "a", "c")
    assert again(desk, run_id, Which.INVALID, "2") == 4
    assert standing(desk, run_id) == [GOOD % 1, GOOD % 2, BAD % 2] * 2
    assert desk.scalar("SELECT count(*) FROM former_outputs") == 4
    words = [row.reason for row in desk.rows("SELECT reason FROM events WHERE reason LIKE '%again%' ORDER BY id")]
    assert words == [
        "Processing of the answers that are no use again, 4, was asked for, with version 2 of the task.",
        "4 answers were processed again, with version 2 of the task.",
    ]
    audit(desk, sandbox)


def test_one_answer_is_processed_again_and_no_other(
    desk: DeskDriver, sandbox: Sandbox, tmp_path: Path, run_id: int
) -> None:
    install(desk, tmp_path, "2", "c")
    (request,) = desk.rows("SELECT r.id FROM requests r JOIN items i ON i.id = r.item_id WHERE i.position = 1")
    wishes.ask_reprocess_request(request.id, version="2", actor="tester")
    work(desk)
    assert standing(desk, run_id) == [GOOD % 1, GOOD % 2, BAD % 1, GOOD % 1, BAD % 1, BAD % 1]
    audit(desk, sandbox)


def test_another_version_than_the_one_asked_for_does_nothing_and_says_so(
    desk: DeskDriver, sandbox: Sandbox, tmp_path: Path, run_id: int
) -> None:
    install(desk, tmp_path, "2")
    before = standing(desk, run_id)
    again(desk, run_id, Which.ALL, "3")
    assert standing(desk, run_id) == before
    refused = (
        "Nothing was processed again with version 3 of task 'opinion': version 2 is installed. "
        "Install the other, or ask again."
    )
    assert desk.scalar("SELECT reason FROM events ORDER BY id DESC LIMIT 1") == refused
    assert desk.scalar("SELECT refused FROM reprocessings") == refused

    install(desk, tmp_path, "3")  # a refused wish stays refused
    desk.execute("INSERT INTO steps (step, target_id, due_at) SELECT 'process', id, now() FROM batches")
    work(desk)
    assert standing(desk, run_id) == before
    again(desk, run_id, Which.ALL, "3")
    assert standing(desk, run_id) == [GOOD % 3] * 6
    assert desk.scalar("SELECT count(*) FROM events WHERE reason LIKE 'Nothing was%'") == 1
    audit(desk, sandbox)


def test_wishes_that_were_answered_long_ago_are_not_answered_or_refused_again(
    desk: DeskDriver, sandbox: Sandbox, tmp_path: Path, run_id: int
) -> None:
    for version in ("2", "3", "4"):
        install(desk, tmp_path, version, "b")
        again(desk, run_id, Which.INVALID, version)
    assert standing(desk, run_id) == [GOOD % 1, BAD % 4, GOOD % 2] * 2
    assert desk.scalar("SELECT count(*) FROM former_outputs") == 4 + 2 + 2
    desk.execute("INSERT INTO steps (step, target_id, due_at) SELECT 'process', id, now() FROM batches")
    work(desk)
    assert desk.scalar("SELECT count(*) FROM former_outputs") == 4 + 2 + 2
    assert desk.scalar("SELECT count(*) FROM reprocessings WHERE refused IS NOT NULL") == 0
    audit(desk, sandbox)


def test_a_task_that_is_gone_refuses_the_wish_and_leaves_the_run_in_peace(
    desk: DeskDriver, sandbox: Sandbox, run_id: int
) -> None:
    before = standing(desk, run_id)
    desk.desk.registry = type(desk.desk.registry)()
    again(desk, run_id, Which.ALL, "1")
    assert standing(desk, run_id) == before
    assert "There is no task 'opinion'" in desk.scalar("SELECT refused FROM reprocessings")
    assert desk.status(run_id).state == "finished"
    assert desk.scalar("SELECT pause_wanted_at FROM runs") is None
    audit(desk, sandbox)


def test_what_comes_in_first_and_what_is_processed_again_take_one_way(
    desk: DeskDriver, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Asked for while a part of the answers has not been processed once: each gets one output, of the version now."""
    desk.change(batch_max_requests=3)
    install(desk, tmp_path, "1", "b")
    run_id = desk.start(records("a", "b", "a", "b", "a"), task="opinion", model="claude-haiku-5-5")
    desk.perform_until("done")
    while desk.scalar("SELECT count(*) FROM batches WHERE state = 'done'") < 2:
        desk.perform_due()
    first, *_ = [row.id for row in desk.rows("SELECT id FROM batches ORDER BY id")]
    desk.perform("process", first)
    install(desk, tmp_path, "2")
    again(desk, run_id, Which.ALL, "2")
    assert standing(desk, run_id) == [GOOD % 2] * 5
    assert desk.status(run_id).state == "finished"
    audit(desk, sandbox)


@pytest.mark.parametrize("point", ["settle_outputs", "note", "finish_if_over"])
def test_a_worker_killed_while_processing_again_makes_no_output_twice(
    desk: DeskDriver, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_id: int, point: str
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    install(desk, tmp_path, "2", "a")
    monkeypatch.setattr(processing, "CHUNK_ROWS", 4)
    wishes.ask_reprocess(run_id, Which.ALL, version="2", actor="tester")
    with monkeypatch.context() as patched:
        patched.setattr(processing, point, die)
        with pytest.raises(Killed):
            desk.perform("process", desk.scalar("SELECT id FROM batches"))
    desk.lapse()
    work(desk)
    assert standing(desk, run_id) == [BAD % 2, GOOD % 2, GOOD % 2] * 2
    assert desk.scalar("SELECT count(*) FROM former_outputs") == 6
    audit(desk, sandbox)


def test_two_wishes_at_once_leave_one_output_each(
    desk: DeskDriver, sandbox: Sandbox, tmp_path: Path, run_id: int
) -> None:
    install(desk, tmp_path, "2", "a")
    for _ in range(2):
        wishes.ask_reprocess(run_id, Which.ALL, version="2", actor="tester")
    work(desk)
    assert standing(desk, run_id) == [BAD % 2, GOOD % 2, GOOD % 2] * 2
    assert desk.scalar("SELECT count(*) FROM former_outputs") == 6
    audit(desk, sandbox)


def test_an_item_stands_by_its_latest_attempt_whatever_becomes_of_the_first_answer(
    desk: DeskDriver, sandbox: Sandbox, tmp_path: Path, run_id: int
) -> None:
    """The first answers are processed again while the second attempts wait; then these are given up."""
    with db.transaction() as tx:
        assert verbs.resubmit_run(tx, run_id, [FailureClass.OUTPUT], actor="tester") == 4
    desk.change(batch_max_requests=2)
    desk.perform("resubmit", run_id)
    install(desk, tmp_path, "2", "c")
    again_count = wishes.ask_reprocess(run_id, Which.ALL, version="2", actor="tester")
    assert again_count == 2, "the others wait for another answer"
    for (batch_id,) in desk.rows("SELECT target_id FROM steps WHERE step = 'process'"):
        desk.perform("process", batch_id)
    assert {row.status for row in desk.outputs(run_id)} == {"succeeded", "pending"}
    audit(desk, sandbox, over=False)

    # As if they had not been cut into batches yet, so that cancelling sets them back to their first attempt.
    desk.execute("DELETE FROM requests WHERE attempt = 2")
    desk.execute("DELETE FROM tallies WHERE batch_id IN (SELECT id FROM batches WHERE state = 'planned')")
    desk.execute("DELETE FROM steps WHERE step = 'submit'")
    desk.execute("DELETE FROM batches WHERE state = 'planned'")
    wishes.ask_cancel_run(run_id, actor="tester")
    work(desk)
    assert desk.status(run_id).state == "cancelled"
    assert standing(desk, run_id) == [GOOD % 2, GOOD % 2, BAD % 2] * 2
    audit(desk, sandbox)


def test_the_output_of_a_subject_is_that_of_its_lowest_attempt_that_is_of_use(
    desk: DeskDriver, sandbox: Sandbox, tmp_path: Path
) -> None:
    install(desk, tmp_path, "1", "b")
    run_id = desk.run(records("a", "b"), task="opinion", model="claude-haiku-5-5")
    install(desk, tmp_path, "2")
    with db.transaction() as tx:
        verbs.resubmit_run(tx, run_id, [FailureClass.OUTPUT], actor="tester")
    desk.work_until_over(run_id)
    assert standing(desk, run_id) == [GOOD % 1, GOOD % 2]
    install(desk, tmp_path, "3")
    first = desk.scalar("SELECT min(r.id) FROM requests r JOIN items i ON i.id = r.item_id WHERE i.position = 1")
    wishes.ask_reprocess_request(first, version="3", actor="tester")
    work(desk)
    assert standing(desk, run_id) == [GOOD % 1, GOOD % 3]
    assert [row.attempts for row in desk.outputs(run_id)] == [1, 2]
    audit(desk, sandbox)


def test_what_has_no_output_cannot_be_processed_again(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(invalid_share=1)
    run_id = desk.run(documents(2))
    work(desk)
    events = desk.scalar("SELECT count(*) FROM events")
    assert wishes.ask_reprocess(run_id, Which.ALL, version="1", actor="tester") == 0
    with pytest.raises(Refused, match="nothing to process again"):
        wishes.ask_reprocess_request(1, version="1", actor="tester")
    with pytest.raises(NotFound):
        wishes.ask_reprocess_request(99, version="1", actor="tester")
    with pytest.raises(NotFound):
        wishes.ask_reprocess(99, Which.ALL, version="1", actor="tester")
    assert desk.scalar("SELECT count(*) FROM events") == events
    assert desk.rows("SELECT * FROM steps WHERE step <> 'deliver'") == []
