"""Selections: what filters mean is what is counted, sent again once, processed again, built anew, and exported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox

from webapp import db, wishes
from webapp.batches import (
    completion,
    exports,
    resubmission,
    resubmissions,
    selecting,
)
from webapp.batches.naming import new_token
from webapp.batches.selecting import Meant
from webapp.batches.states import FailureClass
from webapp.errors import Refused
from webapp.runs import verbs

EVERY = list(FailureClass)
ODD = " odd\n  one "


def send(meant: Meant, *classes: FailureClass, token: str | None = None) -> dict[int, int]:
    """Send what is meant again; how many subjects of which runs."""
    return wishes.ask_resubmit_meant(meant, classes or EVERY, actor="tester", token=token or new_token()).subjects


def counted(meant: Meant) -> dict[tuple[int, str], int]:
    with db.transaction() as tx:
        return selecting.failures(tx, meant).counts


def attempts(desk: DeskDriver, run_id: int) -> list[int]:
    return [n for (n,) in desk.rows("SELECT attempts FROM items WHERE run_id = :run ORDER BY position", run=run_id)]


def keys(meant: Meant) -> list[str]:
    @contextmanager
    def reading() -> Iterator[Connection]:
        with db.transaction(by_key=True) as tx:
            yield tx

    return [row.key for row in exports.requests(reading, meant)]


@pytest.fixture
def run_id(desk: DeskDriver, sandbox: Sandbox) -> int:
    """A finished run of two batches, of which some requests failed for good in two ways."""
    desk.change(batch_max_requests=10)
    sandbox.configure(invalid_share=0.7)
    found = desk.run(documents(19))
    sandbox.configure(invalid_share=0)
    assert desk.scalar("SELECT count(*) FROM items WHERE failure_class = 'fix'") > 4
    # One of them failed in another way, and one of another class.
    (odd,), (other,) = desk.rows("SELECT id FROM requests WHERE failure_class = 'fix' ORDER BY id LIMIT 2")
    desk.execute("UPDATE results SET error_message = :words WHERE request_id = :id", words=ODD, id=odd)
    desk.execute(
        "UPDATE items SET error = :words FROM requests r WHERE r.item_id = items.id AND r.id = :id", words=ODD, id=odd
    )
    desk.execute("UPDATE requests SET failure_class = 'account' WHERE id = :id", id=other)
    desk.execute(
        "UPDATE items SET failure_class = 'account' FROM requests r WHERE r.item_id = items.id AND r.id = :id", id=other
    )
    return found


def failed(desk: DeskDriver, condition: str = "true") -> int:
    """How many items failed, of those with a condition."""
    return int(
        desk.scalar(
            "SELECT count(*) FROM items i LEFT JOIN requests r ON r.item_id = i.id AND r.attempt = i.attempts "
            f"WHERE i.failure_class IS NOT NULL AND {condition}"
        )
    )


def test_every_filter_means_what_a_list_with_it_shows(desk: DeskDriver, run_id: int) -> None:
    (one,) = desk.rows(
        "SELECT r.id, r.custom_id, r.batch_id, s.key, i.subject_id FROM items i JOIN requests r ON r.item_id = i.id "
        "JOIN subjects s ON s.id = i.subject_id WHERE i.failure_class = 'fix' ORDER BY r.id DESC LIMIT 1"
    )
    others = desk.scalar("SELECT count(*) FROM items WHERE failure_class = 'fix' AND error NOT LIKE '%odd%'")
    cause = desk.scalar(
        "SELECT left(max(error), 240) FROM items WHERE failure_class = 'fix' AND error NOT LIKE '%odd%'"
    )
    now = datetime.now(UTC)
    cases = {
        Meant(): failed(desk),
        Meant(run_id=run_id): failed(desk),
        Meant(run_id=run_id + 1): 0,
        Meant(batch_id=1): failed(desk, "r.batch_id = 1"),
        Meant(batch_id=2): failed(desk, "r.batch_id = 2"),
        Meant(request_id=one.id): 1,
        Meant(state="errored"): failed(desk),
        Meant(state="succeeded"): 0,
        Meant(run_id=run_id, cause=ODD): 1,
        Meant(run_id=run_id, failure="fix", cause=cause): others,
        Meant(words=one.key): 1,
        Meant(words=one.custom_id): 1,
        Meant(words=f"{one.subject_id}-"): 1,
        Meant(words="nobody"): 0,
        Meant(error="INVALID"): failed(desk) - 1,
        Meant(error="no such words"): 0,
        Meant(task="classify"): failed(desk),
        Meant(task="other"): 0,
        Meant(since=now - timedelta(hours=1)): failed(desk),
        Meant(since=now + timedelta(hours=1)): 0,
        Meant(until=now + timedelta(hours=1), batch_id=1): failed(desk, "r.batch_id = 1"),
        Meant(until=now - timedelta(hours=1)): 0,
        Meant(outputs=True): 0,
    }
    for meant, expected in cases.items():
        assert sum(counted(meant).values()) == expected, meant
        assert selecting.read(meant.as_json()) == meant
    assert one.key in Meant(words=one.key).told() and Meant(run_id=run_id).told() == ""


def test_a_cause_is_sent_again_and_nothing_else(desk: DeskDriver, sandbox: Sandbox, run_id: int) -> None:
    before = attempts(desk, run_id)
    assert send(Meant(run_id=run_id, failure="fix", cause=ODD)) == {run_id: 1}
    desk.work_until_over(run_id)
    assert sum(attempts(desk, run_id)) == sum(before) + 1
    assert desk.scalar("SELECT count(*) FROM items WHERE error LIKE '%odd%'") == 0
    told = desk.scalar("SELECT reason FROM events WHERE kind = 'wish' AND reason LIKE 'Resubmission%'")
    assert "cause “" in told and told.startswith("Resubmission of 1 failures asked for")


@pytest.mark.parametrize("which", ["batch", "request"])
def test_a_batch_or_one_request_is_sent_again(desk: DeskDriver, sandbox: Sandbox, run_id: int, which: str) -> None:
    one = desk.scalar("SELECT min(id) FROM requests WHERE failure_class = 'fix' AND batch_id = 2")
    meant = Meant(batch_id=2) if which == "batch" else Meant(request_id=one)
    expected = failed(desk, "r.batch_id = 2") if which == "batch" else 1
    assert send(meant) == {run_id: expected}
    desk.work_until_over(run_id)
    assert attempts(desk, run_id).count(2) == expected
    assert send(Meant(request_id=one)) == {}, "another attempt has taken its place"
    audit(desk, sandbox)


def test_a_list_across_runs_makes_one_wish_for_each_run_with_a_match(
    desk: DeskDriver, sandbox: Sandbox, run_id: int
) -> None:
    sandbox.configure(invalid_share=1)
    other = desk.run(documents(3))
    sandbox.configure(invalid_share=0)
    calm = desk.run(documents(2))
    planned = desk.start(documents(2))
    token = new_token()
    sent = send(Meant(failure="fix"), token=token)
    assert sent == {run_id: failed(desk, f"i.run_id = {run_id} AND i.failure_class = 'fix'"), other: 3}
    assert send(Meant(failure="fix"), token=token) == sent, "the same click"
    assert desk.scalar("SELECT count(*) FROM resubmissions") == 2
    for one in (run_id, other, planned):
        desk.work_until_over(one)
    assert attempts(desk, other) == [2] * 3 and attempts(desk, calm) == [1, 1]
    with db.transaction() as tx:
        first = resubmissions.of_token(tx, token)
        assert first is not None
        assert [wish.run_id for wish in resubmissions.click(tx, first, 9)] == [run_id, other]
        found = resubmissions.progress(tx, resubmissions.click_ids(tx, first))
    assert [(total, counts.succeeded) for total, counts in found.values()] == [(n, n) for n in sent.values()]


def test_more_runs_than_one_click_may_act_on_are_refused_in_words(
    desk: DeskDriver, run_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selecting, "MOST_RUNS", 0)
    with pytest.raises(Refused, match="More than 0 runs"):
        send(Meant(state="errored"))
    assert desk.scalar("SELECT count(*) FROM resubmissions") == 0


def test_an_old_wish_takes_nothing_that_was_sent_after_it(desk: DeskDriver, sandbox: Sandbox, run_id: int) -> None:
    """A step that is done again finds its wish, whose new attempts have failed meanwhile."""
    sandbox.configure(invalid_share=1)
    expected = send(Meant(run_id=run_id))[run_id]
    desk.perform("resubmit", run_id)
    desk.work_until_over(run_id)
    assert attempts(desk, run_id).count(2) == expected
    desk.execute("UPDATE resubmissions SET taken_at = NULL")
    with db.transaction() as tx:
        verbs.resubmit_run(tx, run_id, [FailureClass.OUTPUT], actor="tester")
        db.run(tx, "INSERT INTO steps (step, target_id, due_at) VALUES ('resubmit', :id, now())", id=run_id)
    desk.perform("resubmit", run_id)
    assert max(attempts(desk, run_id)) == 2
    assert desk.scalar("SELECT marked FROM resubmissions WHERE id = 1") == expected
    audit(desk, sandbox)


def test_a_wish_beside_the_automatic_retry_is_one_attempt(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(overloaded_share=1)
    run_id = desk.start(documents(4))
    desk.perform_until("done")
    sandbox.configure(overloaded_share=0)
    assert send(Meant(state="errored")) == {run_id: 4}
    desk.work_until_over(run_id, hurry=True)
    assert attempts(desk, run_id) == [2] * 4
    audit(desk, sandbox)


def test_attempts_of_a_wish_are_in_batches_of_their_own(desk: DeskDriver, sandbox: Sandbox) -> None:
    """What the automatic retry sends at the same time is told apart; what became of each wish is counted by these."""
    sandbox.configure(overloaded_share=0.4, invalid_share=0.3)
    run_id = desk.start(documents(30))
    desk.perform_until("done")
    fix, retry = (failed(desk, f"i.failure_class = '{kind}'") for kind in ("fix", "retry"))
    assert fix and retry
    sandbox.configure(overloaded_share=0, invalid_share=0)
    send(Meant(run_id=run_id), FailureClass.FIX)
    desk.hurry()
    desk.perform("resubmit", run_id)
    assert desk.rows("SELECT resubmission_id, sum(total) FROM batches WHERE id > 1 GROUP BY 1 ORDER BY 1") == [
        (1, fix),
        (None, retry),
    ]
    desk.work_until_over(run_id, hurry=True)
    with db.transaction() as tx:
        ((total, counts),) = resubmissions.progress(tx, [1]).values()
    assert (total, counts.succeeded, counts.failed) == (fix, fix, 0)
    audit(desk, sandbox)


@pytest.mark.parametrize("point", ["cut_pending", "taken"])
def test_a_worker_killed_in_the_middle_of_a_wish_leaves_it_to_the_next(
    desk: DeskDriver, sandbox: Sandbox, run_id: int, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    class Killed(BaseException):
        pass

    passed = []

    def die(*arguments: object, **options: object) -> None:
        passed.append(point)
        if point == "taken" or options.get("resubmission_id"):
            raise Killed

    expected = send(Meant(batch_id=1))[run_id]
    with monkeypatch.context() as patched:
        patched.setattr(resubmission if point == "cut_pending" else resubmissions, point, die)
        with pytest.raises(Killed):
            desk.perform("resubmit", run_id)
    desk.lapse()
    desk.work_until_over(run_id)
    assert passed and attempts(desk, run_id).count(2) == expected
    with db.transaction() as tx:
        ((total, counts),) = resubmissions.progress(tx, [1]).values()
    assert (total, counts.succeeded) == (expected, expected)
    audit(desk, sandbox)


def test_a_wish_ends_a_pause_and_a_cancel_drops_the_wish(desk: DeskDriver, sandbox: Sandbox, run_id: int) -> None:
    assert send(Meant(batch_id=1))[run_id]
    with db.transaction() as tx:
        completion.pause_run(tx, run_id, "A person wants it so.", actor="tester")
    desk.perform("resubmit", run_id)
    assert max(attempts(desk, run_id)) == 1 and desk.scalar("SELECT taken_at FROM resubmissions") is None
    with db.transaction() as tx:
        verbs.cancel_run(tx, run_id, actor="tester")
    assert "cancelled before it was sent" in desk.scalar("SELECT dropped FROM resubmissions")
    desk.work_until_over(run_id)
    assert max(attempts(desk, run_id)) == 1
    assert send(Meant(batch_id=2)) == {run_id: failed(desk, "r.batch_id = 2")}, "it takes the run up again"
    desk.work_until_over(run_id)
    assert desk.scalar("SELECT count(*) FROM requests WHERE attempt = 2 AND item_id IN "
                       "(SELECT item_id FROM requests WHERE batch_id = 1)") == 0  # fmt: skip
    audit(desk, sandbox)


def test_a_count_that_stops_says_so_and_everything_is_sent(
    desk: DeskDriver, sandbox: Sandbox, run_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = failed(desk)
    monkeypatch.setattr(selecting, "LOOK", 2)
    monkeypatch.setattr(resubmissions, "MOST_COUNTED", 2)
    with db.transaction() as tx:
        found = selecting.failures(tx, Meant(run_id=run_id))
    assert found.more and sum(found.counts.values()) == 2
    assert send(Meant(run_id=run_id)) == {run_id: 3}, "one more than it counts"
    desk.work_until_over(run_id)
    assert desk.scalar("SELECT marked FROM resubmissions") == expected
    assert "more than 2" in desk.scalar("SELECT reason FROM events WHERE reason LIKE 'Resubmission of%'")


def test_an_export_has_each_request_that_is_meant_once(
    desk: DeskDriver, run_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "LOOK", 3)
    assert sorted(keys(Meant())) == sorted(one["key"] for one in documents(19))
    assert len(keys(Meant(batch_id=1))) == desk.scalar("SELECT total FROM batches WHERE id = 1")
    assert len(keys(Meant(state="errored"))) == failed(desk)
    assert keys(Meant(words="doc-3")) == ["doc-3"]
    assert keys(Meant(request_id=1)) == ["doc-0"]
    assert keys(Meant(task="other")) == []
