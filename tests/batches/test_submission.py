"""One POST of a batch: what each answer, silence, double work and death come to. Nobody pays twice."""

from __future__ import annotations

import threading
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox

from webapp import db
from webapp.batches import body, encoding, settling, submission
from webapp.batches.body import body_pieces
from webapp.batches.states import FailureClass, SubmissionOutcome
from webapp.runs import verbs


class Killed(BaseException):
    """Stands for the worker's death: nothing of ours catches it."""


def planned(desk: DeskDriver, count: int = 5) -> tuple[int, int]:
    """A run that is planned as one batch: (run id, batch id)."""
    run_id = desk.start(documents(count))
    desk.perform("plan", run_id)
    return run_id, desk.scalar("SELECT id FROM batches WHERE run_id = :id", id=run_id)


def bodies(sandbox: Sandbox) -> dict[str, bytes]:
    """What the API received, by batch."""
    return {path.stem: path.read_bytes() for path in sandbox.folder.rglob("msgbatch_*.body")}


def resume(run_id: int) -> None:
    with db.transaction() as tx:
        verbs.resume_run(tx, run_id, actor="tester")


# -- what is sent ----------------------------------------------------------------------------------------------


def test_what_is_stored_is_what_the_api_received(desk: DeskDriver, sandbox: Sandbox) -> None:
    """I16: the system prompt silently dropped on the way."""
    records = documents(3)
    records[0]["text"] = 'quotes " and \\ and \u2028 and \u0085 and é 😀 and \u0000'
    desk.run(records)
    ((api_id, body),) = bodies(sandbox).items()
    stored = desk.rows(
        "SELECT r.custom_id, run.shared::text AS shared, p.own::text AS own FROM requests r "
        "JOIN item_params p ON p.item_id = r.item_id CROSS JOIN runs run ORDER BY r.id"
    )
    sent = orjson.loads(body)["requests"]
    assert [line["custom_id"] for line in sent] == [line.custom_id for line in stored]
    assert [line["params"] for line in sent] == [orjson.loads(line.shared) | orjson.loads(line.own) for line in stored]
    assert "You sort documents" in sent[0]["params"]["system"][0]["text"]
    assert records[0]["text"] in sent[0]["params"]["messages"][0]["content"]
    assert all(line.shared[1:-1].encode() in body and line.own[1:-1].encode() in body for line in stored)
    assert desk.scalar("SELECT api_id FROM batches") == api_id
    assert desk.scalar("SELECT body_bytes FROM batches") == len(body)


def test_images_are_sent_as_the_base64_of_their_very_bytes(desk: DeskDriver, sandbox: Sandbox, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for n in range(3):
        Image.new("RGB", (40 + n, 30), (n * 80, 10, 200)).save(folder / f"{n}.png")
    (folder / "same.png").write_bytes((folder / "0.png").read_bytes())
    run_id = desk.start_folder(folder, "alt_text")
    desk.work_until_over(run_id)
    (body,) = bodies(sandbox).values()
    sent = [line["params"]["messages"][0]["content"][0]["source"] for line in orjson.loads(body)["requests"]]
    files = sorted(folder.iterdir())
    assert [source["data"] for source in sent] == [b64encode(path.read_bytes()).decode() for path in files]
    assert {source["media_type"] for source in sent} == {"image/png"}
    assert desk.scalar("SELECT body_bytes FROM batches") == len(body)
    assert desk.scalar("SELECT count(*) FROM blobs") == 3
    assert desk.summary(run_id).succeeded == 4
    audit(desk, sandbox)


def test_whatever_is_sent_goes_out_in_small_pieces_byte_for_byte(
    desk: DeskDriver, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages, pieces and parts of images end in the middle of anything, and nobody can tell from the body."""
    folder = tmp_path / "images"
    folder.mkdir()
    for n in range(5):
        Image.effect_noise((60 + n, 40), 90).save(folder / f"{n}.png")
    run_id = desk.start_folder(folder, "alt_text")
    other_id = desk.start(documents(7, 900))
    for one in (run_id, other_id):
        desk.perform("plan", one)
    found = desk.rows("SELECT id FROM batches ORDER BY id")
    whole = [_body_of(desk, batch_id) for (batch_id,) in found]
    monkeypatch.setattr(body, "PAGE_ROWS", 2)
    monkeypatch.setattr(body, "PIECE_BYTES", 100)
    monkeypatch.setattr(body, "IMAGE_BYTES", 300)
    for (batch_id,), expected in zip(found, whole, strict=True):
        pieces = list(body_pieces(desk.batch(batch_id).run_id, batch_id))
        assert b"".join(pieces) + encoding.TAIL == expected
        assert max(map(len, pieces)) <= 400
    for one in (run_id, other_id):
        desk.work_until_over(one)
    assert sorted(bodies(sandbox).values()) == sorted(whole)
    assert sorted(map(len, whole)) == [size for (size,) in desk.rows("SELECT body_bytes FROM batches ORDER BY 1")]
    audit(desk, sandbox)


texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts | st.lists(texts)


@given(
    st.dictionaries(st.sampled_from(["model", "système", "s\0"]), values, min_size=1),
    st.dictionaries(st.sampled_from(["messages", "œuvre", 'o"']), values, min_size=1),
)
def test_sizes_are_exact_to_the_byte(shared: dict[str, Any], own: dict[str, Any]) -> None:
    stored, part = encoding.encode(shared, "token").encode(), encoding.encode(own, "token").encode()
    identifier = encoding.custom_id(7, "token", 1).encode()
    line = encoding.join_line(identifier, stored, part)
    assert len(line) == encoding.line_bytes(len(identifier), len(stored), len(part))
    assert encoding.params_bytes(len(stored), len(part)) == len(stored[:-1] + b"," + part[1:])


@given(st.integers(1, 2**63 - 1), st.integers(1, 2**31 - 1))
def test_every_custom_id_is_one_the_api_takes(subject_id: int, attempt: int) -> None:
    """I15: a custom_id over 64 characters is a 400 for the whole batch."""
    identifier = encoding.custom_id(subject_id, "a2b3c4d5e6f7g2h3", attempt)
    assert len(identifier) <= encoding.MAX_ID
    assert set(identifier) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_a_run_draws_a_token_of_80_bits_of_its_own(desk: DeskDriver) -> None:
    one, other = planned(desk)[0], planned(desk)[0]
    tokens = [token for (token,) in desk.rows("SELECT token FROM runs WHERE id IN (:a, :b)", a=one, b=other)]
    assert len(set(tokens)) == 2
    assert {len(token) for token in tokens} == {16}
    assert desk.scalar("SELECT count(DISTINCT custom_id) FROM requests") == 10


# -- certain answers -------------------------------------------------------------------------------------------


def posts(desk: DeskDriver) -> list[tuple[str | None, bool]]:
    """Outcome of each submission, and whether it was armed."""
    found = desk.rows("SELECT outcome, armed_at IS NOT NULL AS armed FROM submissions ORDER BY id")
    return [(post.outcome, post.armed) for post in found]


def test_a_429_throttles_the_account_and_leaves_the_batch_planned(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(create_faults="429:40")
    run_id, batch_id = planned(desk)
    desk.perform("submit", batch_id)
    assert desk.batch(batch_id).state == "planned"
    assert 35 < desk.scalar("SELECT extract(epoch FROM throttled_until - now()) FROM accounts") <= 40
    assert 35 < desk.scalar("SELECT extract(epoch FROM due_at - now()) FROM steps WHERE step = 'submit'") <= 40
    assert posts(desk) == [("not_created", True)]
    desk.work_until_over(run_id, hurry=True)
    audit(desk, sandbox)


def test_a_throttled_account_sends_nothing_of_any_run(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(create_faults="429:40")
    _, first = planned(desk)
    desk.perform("submit", first)
    _, second = planned(desk)
    desk.perform("submit", second)
    assert desk.states() == ["planned", "planned"]
    assert len(posts(desk)) == 1


@pytest.mark.parametrize("fault", ["500", "529", "503", "504", "408", "409", "drop_before", "502"])
def test_an_unclear_answer_without_a_batch_is_settled_by_sending_again(
    desk: DeskDriver, sandbox: Sandbox, fault: str
) -> None:
    """I2: a retry submitted a second billable batch."""
    sandbox.configure(create_faults=fault)
    run_id, batch_id = planned(desk)
    desk.perform("submit", batch_id)
    assert desk.batch(batch_id).state == "submit_unknown"
    assert posts(desk) == [("unknown", True)]
    assert sandbox.bill()["batches"] == []
    desk.work_until_over(run_id, hurry=True)
    assert posts(desk) == [("not_created", True), ("created", True)]
    assert desk.summary(run_id).succeeded == 5
    audit(desk, sandbox)


@pytest.mark.parametrize("fault", ["drop_after", "500_after", "529_after", "garbled", "timeout_after:0.2"])
def test_an_unclear_answer_with_a_batch_is_settled_by_adopting_it(
    desk: DeskDriver, sandbox: Sandbox, fault: str
) -> None:
    """I1, I2: one batch at the API, one ledger line for each answer."""
    sandbox.configure(create_faults=fault)
    run_id, batch_id = planned(desk)
    desk.perform("submit", batch_id)
    assert desk.batch(batch_id).state == "submit_unknown"
    desk.work_until_over(run_id, hurry=True)
    assert len(sandbox.bill()["batches"]) == 1
    assert posts(desk) == [("created", True)]
    assert desk.batch(batch_id).proved
    assert desk.summary(run_id).succeeded == 5
    audit(desk, sandbox)


def test_the_sdk_does_not_post_again_by_itself(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(create_faults="529*3", should_retry="true")
    _, batch_id = planned(desk)
    desk.perform("submit", batch_id)
    sandbox.configure(create_faults="")
    assert posts(desk) == [("unknown", True)]
    assert sandbox.bill()["batches"] == []


def test_a_413_is_cut_in_two_of_different_totals(desk: DeskDriver, sandbox: Sandbox) -> None:
    """I14: a body that the API finds too large is made smaller, not given up."""
    sandbox.configure(create_faults="413")
    run_id, batch_id = planned(desk, 8)
    desk.perform("submit", batch_id)
    assert desk.rows("SELECT state, total FROM batches ORDER BY id") == [
        ("discarded", 8),
        ("planned", 3),
        ("planned", 5),
    ]
    desk.work_until_over(run_id, hurry=True)
    assert desk.summary(run_id).succeeded == 8
    sizes = {len(body) for body in bodies(sandbox).values()}
    assert sizes == {size for (size,) in desk.rows("SELECT body_bytes FROM batches WHERE state = 'done'")}
    audit(desk, sandbox)


def test_a_413_for_a_batch_of_two_ends_with_two_batches(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(create_faults="413")
    run_id, _ = planned(desk, 2)
    desk.work_until_over(run_id, hurry=True)
    assert desk.summary(run_id).succeeded == 2
    audit(desk, sandbox)


def test_one_request_alone_that_is_too_large_fails_with_the_reason(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(create_faults="413*")
    run_id, _ = planned(desk, 2)
    desk.work_until_over(run_id, hurry=True)
    assert desk.status(run_id).state == "finished"
    assert {row.status for row in desk.outputs(run_id)} == {"errored"}
    assert all("too large" in (row.error or "") for row in desk.outputs(run_id))
    audit(desk, sandbox)


def test_a_400_fails_the_batch_with_its_reason(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(create_faults="400")
    run_id, batch_id = planned(desk)
    desk.work_until_over(run_id)
    assert desk.batch(batch_id).state == "failed"
    assert "refused by the sandbox" in desk.batch(batch_id).reason
    assert desk.summary(run_id).errored == 5
    assert {row.failure_class for row in desk.rows("SELECT failure_class FROM items")} == {"fix"}
    audit(desk, sandbox)


def test_a_failed_batch_can_be_sent_again_by_hand(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(create_faults="400")
    run_id, _ = planned(desk)
    desk.work_until_over(run_id)
    with db.transaction() as tx:
        assert verbs.resubmit_run(tx, run_id, [FailureClass.FIX], actor="tester") == 5
    desk.work_until_over(run_id)
    assert desk.summary(run_id).succeeded == 5
    audit(desk, sandbox)


@pytest.mark.parametrize("fault", ["401", "402", "403", "credit", "spend_cap"])
def test_an_account_failure_pauses_the_run_and_resuming_goes_on(desk: DeskDriver, sandbox: Sandbox, fault: str) -> None:
    """I11: no credit is a matter of the account, not of thousands of requests."""
    sandbox.configure(create_faults=fault)
    run_id, batch_id = planned(desk)
    status = desk.work_until_over(run_id)
    assert status.state == "paused"
    assert "refuses this account" in (status.reason or "")
    assert desk.batch(batch_id).state == "planned"
    desk.hurry()
    desk.perform_due()
    assert len(posts(desk)) == 1
    resume(run_id)
    desk.work_until_over(run_id)
    assert desk.summary(run_id).succeeded == 5
    audit(desk, sandbox)


def test_a_key_that_is_refused_before_the_post_pauses_the_run(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(list_faults="401")
    run_id, _ = planned(desk)
    assert desk.work_until_over(run_id).state == "paused"
    assert posts(desk) == []


def test_an_api_that_is_down_before_the_post_is_asked_again(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(list_faults="500,drop_before")
    run_id, batch_id = planned(desk)
    for _ in range(2):
        desk.perform("submit", batch_id)
        assert desk.batch(batch_id).state == "planned"
        assert posts(desk) == []
        desk.hurry()
    desk.work_until_over(run_id)
    audit(desk, sandbox)


# -- twice, at once, killed ------------------------------------------------------------------------------------


def at_once(desk: DeskDriver, count: int, work: Callable[[], None]) -> None:
    """Do something in several threads, each with an application context of its own."""
    start = threading.Barrier(count)

    def one() -> None:
        with desk.app.app_context():
            start.wait(10)
            work()

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


def test_submit_performed_twice_and_at_once_makes_one_create(desk: DeskDriver, sandbox: Sandbox) -> None:
    """I2, I18: the job is on two workers."""
    run_id, batch_id = planned(desk)
    at_once(desk, 4, lambda: desk.perform("submit", batch_id))
    desk.perform("submit", batch_id)
    assert len(sandbox.bill()["batches"]) == 1
    assert posts(desk) == [("created", True)]
    desk.work_until_over(run_id)
    audit(desk, sandbox)


def test_two_posts_of_one_total_are_never_open_at_once(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(create_faults="drop_after")
    first_run, first = planned(desk)
    second_run, second = planned(desk)
    desk.perform("submit", first)
    desk.perform("submit", second)
    assert desk.states() == ["submit_unknown", "planned"]
    assert posts(desk) == [("unknown", True)]
    with pytest.raises(Exception, match="uq_submissions_open_total"):
        desk.execute(
            "INSERT INTO submissions (batch_id, account_id, total, api_time) "
            "SELECT :second, account_id, total, now() FROM submissions",
            second=second,
        )
    desk.work_until_over(first_run, hurry=True)
    desk.work_until_over(second_run, hurry=True)
    assert len(sandbox.bill()["batches"]) == 2
    audit(desk, sandbox)


def test_a_worker_killed_before_arming_is_known_to_have_created_nothing(
    desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, batch_id = planned(desk)
    with monkeypatch.context() as patched:
        patched.setattr(submission, "_arm", _die)
        with pytest.raises(Killed):
            desk.perform("submit", batch_id)
    assert desk.batch(batch_id).state == "submitting"
    desk.lapse()
    desk.perform("submit", batch_id)
    assert desk.batch(batch_id).state == "planned"
    assert posts(desk) == [("not_created", False)]
    desk.work_until_over(run_id)
    assert len(sandbox.bill()["batches"]) == 1
    audit(desk, sandbox)


def test_a_worker_killed_after_the_answer_leaves_a_batch_that_is_adopted(
    desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I1: ids only in memory orphaned paid batches and sent them again."""
    run_id, batch_id = planned(desk)
    with monkeypatch.context() as patched:
        patched.setattr(submission, "record_created", _die)
        with pytest.raises(Killed):
            desk.perform("submit", batch_id)
    desk.lapse()
    desk.perform("submit", batch_id)
    assert desk.batch(batch_id).state == "submit_unknown"
    desk.work_until_over(run_id, hurry=True)
    assert len(sandbox.bill()["batches"]) == 1
    assert desk.summary(run_id).succeeded == 5
    audit(desk, sandbox)


def test_a_database_that_is_away_after_the_answer_costs_no_second_batch(
    desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, batch_id = planned(desk)
    with monkeypatch.context() as patched:
        patched.setattr(submission, "record_created", _fail)
        desk.perform("submit", batch_id)
    desk.work_until_over(run_id, hurry=True)
    assert len(sandbox.bill()["batches"]) == 1
    audit(desk, sandbox)


def _die(*_: Any, **__: Any) -> None:
    raise Killed


def _fail(*_: Any, **__: Any) -> None:
    raise RuntimeError("the database is away")


def stolen(desk: DeskDriver, batch_id: int) -> None:
    """Another worker takes the step over, as when this one was asleep."""
    desk.lapse()
    desk.perform("submit", batch_id)


def test_a_stale_worker_is_not_armed(desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lease lapsed in the middle of the body: its last bytes are never sent."""
    run_id, batch_id = planned(desk)
    arm = submission._arm

    def overtaken(*arguments: Any) -> None:
        monkeypatch.setattr(submission, "_arm", arm)
        stolen(desk, batch_id)  # recovers: certainly not created
        stolen(desk, batch_id)  # and sends
        arm(*arguments)

    monkeypatch.setattr(submission, "_arm", overtaken)
    desk.perform("submit", batch_id)
    assert len(sandbox.bill()["batches"]) == 1
    assert posts(desk) == [("not_created", False), ("created", True)]
    desk.work_until_over(run_id)
    audit(desk, sandbox)


@pytest.mark.parametrize("fault", ["drop_after", "500_after"])
def test_a_stale_worker_without_an_answer_undoes_no_adoption(
    desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    sandbox.configure(create_faults=fault)
    run_id, batch_id = planned(desk)
    answered = submission._answered

    def overtaken(*arguments: Any) -> Any:
        stolen(desk, batch_id)  # recovers: unknown
        desk.hurry()
        desk.perform("submit", batch_id)  # settles: adopted
        return answered(*arguments)

    monkeypatch.setattr(submission, "_answered", overtaken)
    desk.perform("submit", batch_id)
    assert posts(desk) == [("created", True)]
    assert desk.batch(batch_id).state == "in_progress"
    desk.work_until_over(run_id)
    audit(desk, sandbox)


def test_a_stale_worker_that_was_held_back_disturbs_no_other_post(
    desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, batch_id = planned(desk)
    end_post = settling.end_post

    def overtaken(*arguments: Any, **words: Any) -> Any:
        monkeypatch.setattr(submission, "end_post", end_post)
        stolen(desk, batch_id)  # recovers
        stolen(desk, batch_id)  # and sends
        return end_post(*arguments, **words)

    def held_back(*_: Any) -> None:
        monkeypatch.setattr(submission, "_arm", arm)
        monkeypatch.setattr(submission, "end_post", overtaken)
        raise submission.NotArmed("held back")

    arm = submission._arm
    monkeypatch.setattr(submission, "_arm", held_back)
    desk.perform("submit", batch_id)
    assert desk.batch(batch_id).state == "in_progress"
    desk.work_until_over(run_id)
    assert len(sandbox.bill()["batches"]) == 1
    audit(desk, sandbox)


def test_an_id_in_hand_is_recorded_whatever_the_epoch(
    desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, batch_id = planned(desk)
    record_created = settling.record_created

    def late(*arguments: Any, **words: Any) -> None:
        stolen(desk, batch_id)  # another worker takes the POST for unknown
        record_created(*arguments, **words)

    with monkeypatch.context() as patched:
        patched.setattr(submission, "record_created", late)
        desk.perform("submit", batch_id)
    assert posts(desk) == [("created", True)]
    assert desk.batch(batch_id).state == "in_progress"
    desk.work_until_over(run_id)
    audit(desk, sandbox)


def test_an_id_in_hand_of_a_batch_that_was_planned_again_is_not_paid_twice(desk: DeskDriver, sandbox: Sandbox) -> None:
    """The answer came after everybody had given it up: the batch is there, so it is not sent again."""
    sandbox.configure(create_faults="drop_before")
    run_id, batch_id = planned(desk)
    desk.perform("submit", batch_id)
    desk.hurry()
    desk.perform("submit", batch_id)
    assert desk.batch(batch_id).state == "planned"
    api_id = sandbox.call("POST", "/v1/messages/batches", orjson.loads(_body_of(desk, batch_id)))["id"]
    created = desk.desk.gateway.retrieve(api_id)
    with db.transaction() as tx:
        settling.record_created(tx, batch_id, desk.scalar("SELECT max(id) FROM submissions"), created, actor="submit")
    assert desk.batch(batch_id).state == "in_progress"
    assert desk.batch(batch_id).api_id == api_id
    desk.work_until_over(run_id, hurry=True)
    audit(desk, sandbox)


def _body_of(desk: DeskDriver, batch_id: int) -> bytes:
    batch = desk.batch(batch_id)
    return b"".join(body_pieces(batch.run_id, batch_id)) + encoding.TAIL


def test_a_post_under_way_is_not_armed_once_its_batch_is_at_the_api(
    desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier POST's answer comes while the batch is sent again: the second is held back."""
    sandbox.configure(create_faults="drop_before")
    run_id, batch_id = planned(desk)
    desk.perform("submit", batch_id)
    desk.hurry()
    desk.perform("submit", batch_id)
    desk.hurry()
    arm = submission._arm

    def late_answer(*arguments: Any) -> None:
        first = desk.scalar("SELECT min(id) FROM submissions")
        api_id = sandbox.call("POST", "/v1/messages/batches", orjson.loads(_body_of(desk, batch_id)))["id"]
        with db.transaction() as tx:
            settling.record_created(tx, batch_id, first, desk.desk.gateway.retrieve(api_id), actor="submit")
        arm(*arguments)

    monkeypatch.setattr(submission, "_arm", late_answer)
    desk.perform("submit", batch_id)
    assert len(sandbox.bill()["batches"]) == 1
    desk.work_until_over(run_id, hurry=True)
    audit(desk, sandbox)


@pytest.mark.parametrize("wish", ["cancel_wanted_at", "pause_wanted_at"])
def test_a_wish_is_seen_at_arming(
    desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, wish: str
) -> None:
    run_id, batch_id = planned(desk)
    arm = submission._arm

    def wished(*arguments: Any) -> None:
        desk.execute(f"UPDATE runs SET {wish} = now()")
        arm(*arguments)

    monkeypatch.setattr(submission, "_arm", wished)
    desk.perform("submit", batch_id)
    assert desk.batch(batch_id).state == "planned"
    assert posts(desk) == [("not_created", False)]
    assert sandbox.bill()["batches"] == []
    desk.perform_due()
    assert desk.batch(batch_id).state == ("discarded" if wish == "cancel_wanted_at" else "planned")
    monkeypatch.undo()
    if wish == "pause_wanted_at":
        resume(run_id)
        desk.work_until_over(run_id)
        assert desk.summary(run_id).succeeded == 5
    else:
        assert desk.status(run_id).state == "cancelled"
        assert desk.summary(run_id).stopped == 5
    audit(desk, sandbox)


def test_a_body_of_another_length_than_announced_is_never_accepted(desk: DeskDriver, sandbox: Sandbox) -> None:
    _, batch_id = planned(desk)
    desk.execute("UPDATE batches SET body_bytes = body_bytes - 1")
    desk.perform("submit", batch_id)
    assert sandbox.bill()["batches"] == []


def test_outcomes_are_one_of_three() -> None:
    assert {outcome.value for outcome in SubmissionOutcome} == {"created", "not_created", "unknown"}
