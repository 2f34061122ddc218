"""The step `deliver`: outputs reach their destination, whole and in order, at least once, whatever sinks do; and runs
are none the worse for it.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.audit import audit
from support.delivering import Teller
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox

from webapp import wishes
from webapp.batches.bounded import Bounds
from webapp.batches.reprocessing import Which
from webapp.batches.states import FailureClass
from webapp.delivery import delivering
from webapp.errors import InputError, NotFound, Refused


@pytest.fixture
def teller(desk: DeskDriver, tmp_path: Path) -> Teller:
    teller = Teller(desk, tmp_path)
    teller.destination()
    return teller


def last_wait(teller: Teller) -> float:
    """Seconds until the next try, as the step has said it the last time."""
    found = re.search("is tried again in ([0-9.]+) seconds", teller.events()[-1])
    assert found, teller.events()[-1]
    return float(found[1])


def test_outputs_are_delivered_once_the_run_is_over_each_once_in_the_order_of_the_input(
    desk: DeskDriver, teller: Teller, sandbox: Sandbox
) -> None:
    teller.install(useless=("doc-1",))
    run_id = teller.start()
    desk.perform("plan", run_id)
    assert teller.states() == []
    desk.work_until_over(run_id)
    teller.work()

    ids = dict(desk.rows("SELECT s.key, r.custom_id FROM requests r JOIN items i ON i.id = r.item_id "
                         "JOIN subjects s ON s.id = i.subject_id"))  # fmt: skip
    (part,) = teller.told
    assert [(one[0], one[1]) for one in part["outputs"]] == [(ids[f"doc-{n}"], f"doc-{n}") for n in range(5)]
    assert [one[2:5] for one in part["outputs"][:2]] == [["succeeded", {"by": "1"}, None], ["invalid", None, "no use"]]
    assert part["outputs"][0][5] == documents(1)[0]
    assert (part["run"], part["state"], part["counts"]["succeeded"], part["counts"]["invalid"]) == (
        run_id, "finished", 4, 1)  # fmt: skip
    assert teller.states() == [("sink", "there", 1, "delivered")]
    assert teller.events() == ["5 outputs were delivered to 'there'."]
    audit(desk, sandbox)


def test_what_was_never_answered_is_not_delivered(desk: DeskDriver, teller: Teller, sandbox: Sandbox) -> None:
    sandbox.configure(errored_share=1)
    teller.run()
    teller.work()
    assert teller.told == [] and teller.states() == [("sink", "there", 1, "delivered")]


def test_outputs_go_in_parts_and_a_part_that_is_refused_goes_again_with_its_key(
    desk: DeskDriver, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering, "CHUNK_ROWS", 2)
    run_id = teller.run()
    delivery = teller.only()
    desk.perform("deliver", delivery.id)
    assert [len(part["outputs"]) for part in teller.told] == [2, 2, 1]
    assert len({part["key"] for part in teller.told}) == 3

    wishes.ask_deliver(run_id, ["there"], actor="tester")
    teller.order("(Path(settings.folder) / 'orders').write_text('refuse')")  # the first is taken, the second is not
    teller.work()
    again = teller.told[3:]
    assert [len(part["outputs"]) for part in again] == [2, 2, 1]
    assert not {part["key"] for part in again} & {part["key"] for part in teller.told[:3]}, "another round, other keys"
    assert teller.states()[1:] == [("sink", "there", 2, "delivered")]


def test_a_part_is_bounded_in_bytes_and_a_longer_output_goes_alone(
    teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering, "CHUNK_BYTES", 250)
    teller.run()
    teller.work()
    assert [len(part["outputs"]) for part in teller.told] == [2, 2, 1]
    monkeypatch.setattr(delivering, "CHUNK_BYTES", 1)
    wishes.ask_deliver(1, ["there"], actor="tester")
    teller.work()
    assert [len(part["outputs"]) for part in teller.told[3:]] == [1] * 5


def test_a_part_that_was_taken_and_not_noted_goes_again_with_the_same_key(
    desk: DeskDriver, teller: Teller, database_url: str
) -> None:
    """As when the worker is killed just then: another has its lease."""
    teller.run()
    statement = "UPDATE steps SET epoch = nextval('step_epochs'), lease_until = now() - interval '1 s'"
    teller.order(f"import psycopg\nwith psycopg.connect({database_url!r}) as c: c.execute({statement!r})")
    teller.work()
    first, second = teller.told
    assert first == second
    assert teller.only().outputs == 5


def test_no_transaction_is_open_while_a_sink_is_at_work(teller: Teller, database_url: str, tmp_path: Path) -> None:
    look = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%' AND datname = current_database()"
    teller.run()
    teller.order(
        f"import psycopg\nwith psycopg.connect({database_url!r}) as c:\n"
        f"    Path({str(tmp_path / 'seen')!r}).write_text(str(c.execute({look!r}).fetchone()[0]))"
    )
    teller.work()
    assert (tmp_path / "seen").read_text() == "0"


def test_a_sink_that_fails_is_tried_again_after_longer_and_longer_then_waits_for_a_person(
    desk: DeskDriver, teller: Teller, sandbox: Sandbox
) -> None:
    run_id = teller.run()
    before = [desk.rows(f"SELECT * FROM {table}") for table in ("runs", "batches", "items", "tallies")]
    delivery = teller.only()
    waits = []
    for failures in range(1, delivering.MOST_FAILURES):
        teller.order("refuse")
        desk.perform("deliver", delivery.id)
        now = teller.only()
        assert (now.state, now.failures) == ("waiting", failures)
        assert "it raised ValueError: not now" in now.reason
        waits.append(last_wait(teller))
        desk.hurry()
    assert waits[:3] == [10, 20, 40] and waits[-1] == delivering.MOST_DELAY
    teller.order("refuse")
    desk.perform("deliver", delivery.id)
    assert teller.only().state == "failed"
    assert desk.rows("SELECT 1 FROM steps WHERE target_id = :id", id=delivery.id) == []
    assert "failed 12 times in a row" in teller.events()[-1]
    assert before == [desk.rows(f"SELECT * FROM {table}") for table in ("runs", "batches", "items", "tallies")]

    assert wishes.ask_deliver_again(delivery.id, actor="tester") == run_id
    teller.work()
    assert teller.only().state == "delivered" and len(teller.keys) == 5
    with pytest.raises(Refused, match="is delivered"):
        wishes.ask_deliver_again(delivery.id, actor="tester")
    with pytest.raises(NotFound):
        wishes.ask_deliver_again(999, actor="tester")
    audit(desk, sandbox)


def test_a_receiver_may_ask_to_wait_longer_but_not_for_ever(desk: DeskDriver, teller: Teller) -> None:
    teller.run()
    for asked, waits in (("90", 90), ("1e9", delivering.MOST_DELAY), ("float('inf')", 40)):
        teller.order(f"error = ValueError('later'); error.retry_after = {asked}; raise error")
        desk.perform("deliver", teller.only().id)
        assert last_wait(teller) == waits
        desk.hurry()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("os._exit(9)", "it ended its process 2 times"),
        ("import time; time.sleep(600)", "it did not come back within 2 seconds"),
        ("raise KeyboardInterrupt", "it raised KeyboardInterrupt"),
        ("raise SystemExit", "it raised SystemExit"),
    ],
)
def test_a_sink_that_breaks_its_bounds_is_named_and_tried_again(
    teller: Teller, monkeypatch: pytest.MonkeyPatch, what: str, words: str
) -> None:
    monkeypatch.setattr(delivering, "BOUNDS", Bounds(cpu=60, wall=2.0))
    teller.run(1)
    # A process that ends is tried once more at once, before anybody is blamed.
    teller.order(f"(Path(settings.folder) / 'orders').write_text({what!r}); {what}")
    teller.desk.perform("deliver", teller.only().id)
    assert words in teller.only().reason
    (teller.folder / "orders").unlink(missing_ok=True)
    teller.work()
    assert teller.only().state == "delivered"


def test_a_delivery_that_kills_its_worker_again_and_again_is_given_up(desk: DeskDriver, teller: Teller) -> None:
    teller.run()
    desk.execute("UPDATE steps SET starts = :most WHERE step = 'deliver'", most=delivering.MOST_STARTS)
    teller.work()
    assert teller.only().state == "failed" and "died 5 times in a row" in teller.only().reason


def test_a_secret_that_an_error_holds_is_not_kept(
    teller: Teller, desk: DeskDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TELLER_SECRET", "postgresql://me:hunter22@db/x")
    teller.run()
    desk.execute("UPDATE destinations SET settings = CAST(:settings AS json)",
                 settings=f'{{"folder": "{teller.folder}", "secret": "env:TELLER_SECRET"}}')  # fmt: skip
    teller.order("refuse")
    desk.perform("deliver", teller.only().id)
    said = [teller.only().reason, *teller.events()]
    assert "not now, env:TELLER_SECRET" in said[0] and "hunter22" not in str(said)


def test_a_sink_that_is_gone_fails_with_words_and_is_tried_again_by_hand(
    desk: DeskDriver, teller: Teller, tmp_path: Path
) -> None:
    teller.run()
    registry = desk.desk.registry
    source = "from webapp.hooks import *\n@hookimpl\ndef check_run(run, settings): pass"
    desk.use_plugin(tmp_path / "other", source)
    teller.work()
    assert teller.only().state == "failed"
    assert "There is no sink 'teller'" in teller.only().reason
    desk.desk.registry = registry
    wishes.ask_deliver_again(teller.only().id, actor="tester")
    teller.work()
    assert teller.only().state == "delivered"


def test_failures_that_are_sent_again_bring_another_round_which_takes_the_place_of_one_that_has_not_come_through(
    desk: DeskDriver, teller: Teller, sandbox: Sandbox
) -> None:
    sandbox.configure(errored_share=1)
    run_id = teller.run()
    sandbox.configure(errored_share=0)
    wishes.ask_resubmit(run_id, list(FailureClass), actor="tester")
    teller.desk.perform("deliver", teller.only().id)
    assert teller.only().started_at is None
    assert teller.states() == [("sink", "there", 1, "superseded")], "the run is under way again: its end brings all"
    desk.work_until_over(run_id)
    assert teller.states() == [("sink", "there", 1, "superseded"), ("sink", "there", 2, "waiting")]
    teller.work()
    assert len(teller.keys) == 5
    wishes.ask_resubmit(run_id, list(FailureClass), actor="tester")
    assert len(teller.states()) == 2, "nothing was left to send again"


def test_answers_that_are_processed_again_are_delivered_again_once_all_of_them_are(
    desk: DeskDriver, teller: Teller, sandbox: Sandbox
) -> None:
    desk.change(batch_max_requests=2)
    run_id = teller.run()
    teller.work()
    teller.install("2")
    wishes.ask_reprocess(run_id, Which.ALL, version="2", actor="tester")
    batches = [row.target_id for row in desk.rows("SELECT target_id FROM steps WHERE step = 'process' ORDER BY 1")]
    assert len(batches) == 3
    desk.perform("process", batches[0])
    assert teller.states()[1:] == [("sink", "there", 2, "waiting")]
    second = desk.scalar("SELECT max(id) FROM deliveries WHERE kind = 'sink'")
    desk.perform("deliver", second)
    assert desk.scalar("SELECT started_at FROM deliveries WHERE id = :id", id=second) is None
    for batch_id in batches[1:]:
        desk.perform("process", batch_id)
    teller.work()
    assert teller.states()[1:] == [("sink", "there", 2, "delivered")], "one round for all of them"
    assert [one[3] for part in teller.told[1:] for one in part["outputs"]] == [{"by": "2"}] * 5
    audit(desk, sandbox)


def test_outputs_that_change_while_they_are_delivered_are_delivered_once_more(
    desk: DeskDriver, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering, "CHUNK_ROWS", 2)
    monkeypatch.setattr(delivering, "TURN_SECONDS", 0.0)
    run_id = teller.run()
    desk.perform("deliver", teller.only().id)
    assert len(teller.keys) == 2
    teller.install("2")
    wishes.ask_reprocess(run_id, Which.ALL, version="2", actor="tester")
    desk.perform_due()
    teller.work()
    assert teller.states() == [("sink", "there", 1, "superseded"), ("sink", "there", 2, "delivered")]
    assert [one[3] for part in teller.told[-3:] for one in part["outputs"]] == [{"by": "2"}] * 5


def test_the_output_of_a_record_is_that_of_its_lowest_succeeded_attempt(
    desk: DeskDriver, teller: Teller, sandbox: Sandbox
) -> None:
    """It was no use, was sent again, and then the first answer was of use to a mended task."""
    teller.install("1", useless=("doc-0",))
    run_id = teller.run(1)
    wishes.ask_resubmit(run_id, [FailureClass.OUTPUT], actor="tester")
    teller.install("2")
    desk.work_until_over(run_id)
    wishes.ask_reprocess(run_id, Which.ALL, version="2", actor="tester")
    desk.perform_due()
    teller.work()
    first, second = desk.rows("SELECT custom_id FROM requests ORDER BY attempt")
    assert [one[0] for one in teller.told[-1]["outputs"]] == [first.custom_id]
    assert second.custom_id != first.custom_id


# -- destinations ------------------------------------------------------------------------------------------------


def test_a_disabled_destination_is_waited_for(desk: DeskDriver, teller: Teller) -> None:
    teller.run()
    wishes.ask_switch_destination(1, on=False, actor="tester")
    with pytest.raises(Refused, match="disabled already"):
        wishes.ask_switch_destination(1, on=False, actor="tester")
    teller.work()
    assert teller.only().state == "waiting" and "is disabled" in teller.only().reason and teller.told == []
    with pytest.raises(InputError, match="'there' is disabled"):
        wishes.ask_deliver(1, ["there"], actor="tester")
    wishes.ask_switch_destination(1, on=True, actor="tester")
    teller.work()
    assert teller.only().state == "delivered"


def test_a_destination_that_is_needed_cannot_be_deleted(desk: DeskDriver, teller: Teller) -> None:
    run_id = teller.start()
    with pytest.raises(Refused, match=f"run {run_id} names it"):
        wishes.ask_delete_destination(1, actor="tester")
    desk.work_until_over(run_id)
    wishes.ask_delete_destination(1, actor="tester")
    teller.work()
    assert teller.only().state == "failed" and "no destination of that name any more" in teller.only().reason
    teller.destination()
    wishes.ask_deliver_again(teller.only().id, actor="tester")
    teller.work()
    assert teller.only().state == "delivered"


@pytest.mark.parametrize("name", ["", "there", "a b", "../x", "é", "x" * 65, "-x"])
def test_a_destination_has_a_plain_name_of_its_own(teller: Teller, name: str) -> None:
    with pytest.raises(InputError):
        teller.destination(name)


def test_a_destination_is_saved_with_settings_that_its_sink_can_work_with(teller: Teller) -> None:
    with pytest.raises(InputError, match="setting 'folder' is required"):
        wishes.ask_make_destination("other", "teller", {}, actor="tester")
    with pytest.raises(InputError, match="write env:NAME"):
        wishes.ask_make_destination("o", "teller", {"folder": "x", "secret": "hunter22"}, actor="tester")
    with pytest.raises(NotFound, match="There is no sink 'nowhere'"):
        wishes.ask_make_destination("other", "nowhere", {}, actor="tester")
    with pytest.raises(InputError, match="no destination 'nowhere'"):
        wishes.ask_deliver(1, ["nowhere"], actor="tester")


def test_a_run_that_rebuilds_another_delivers_to_the_same_places(desk: DeskDriver, teller: Teller) -> None:
    run_id = teller.run()
    child = wishes.ask_rebuild(run_id, None, {"model": "claude-haiku-5-5"}, actor="tester", token="a" * 16)
    desk.work_until_over(child.run_id)
    teller.work()
    assert [(part["run"], len(part["outputs"])) for part in teller.told] == [(run_id, 5), (child.run_id, 5)]


# -- hooks -------------------------------------------------------------------------------------------------------


def test_a_plugin_is_told_that_a_run_is_over_and_again_when_it_is_over_again(
    desk: DeskDriver, tmp_path: Path, sandbox: Sandbox
) -> None:
    teller = Teller(desk, tmp_path, hook=True)
    sandbox.configure(errored_share=1)
    run_id = teller.run(2)
    assert teller.hooked == []
    teller.work()
    sandbox.configure(errored_share=0)
    wishes.ask_resubmit(run_id, list(FailureClass), actor="tester")
    desk.work_until_over(run_id)
    teller.work()
    first, second = teller.hooked
    assert first[1:4] == second[1:4] == [run_id, "finished", f"/runs/{run_id}/"]
    assert (first[4]["errored"], second[4]["succeeded"]) == (2, 2) and first[0] != second[0]
    assert teller.states() == [("hook", "testing", 1, "delivered"), ("hook", "testing", 2, "delivered")]
    assert teller.events()[0] == "Plugin 'testing' was told that the run is over."


def test_nothing_waits_for_ever_when_a_run_is_under_way_again_and_a_plugin_is_gone_at_its_end(
    desk: DeskDriver, tmp_path: Path, sandbox: Sandbox
) -> None:
    teller = Teller(desk, tmp_path, hook=True)
    sandbox.configure(errored_share=1)
    run_id = teller.run(2)
    for (batch_id,) in desk.rows("SELECT target_id FROM steps WHERE step = 'process'"):
        desk.perform("process", batch_id)
    desk.perform("deliver", teller.only(kind="news").id)
    sandbox.configure(errored_share=0)
    wishes.ask_resubmit(run_id, list(FailureClass), actor="tester")
    desk.perform("deliver", teller.only(kind="hook").id)
    assert teller.states() == [("hook", "testing", 1, "superseded")] and teller.hooked == []
    said = desk.rows("SELECT reason FROM events WHERE target_kind = 'delivery' AND to_state = 'superseded'")
    assert [reason for (reason,) in said] == [
        "Telling plugin 'testing', round 1, is given up: the run is under way again, and its end brings everything."
    ]
    desk.desk.registry = replace(desk.desk.registry, listeners=())
    desk.work_until_over(run_id)
    teller.work()
    audit(desk, sandbox)


def test_news_of_a_run_that_is_under_way_again_tells_nobody(desk: DeskDriver, tmp_path: Path, sandbox: Sandbox) -> None:
    teller = Teller(desk, tmp_path, hook=True)
    sandbox.configure(errored_share=1)
    run_id = teller.run(2)
    sandbox.configure(errored_share=0)
    wishes.ask_resubmit(run_id, list(FailureClass), actor="tester")
    desk.perform("deliver", teller.only(kind="news").id)
    assert desk.scalar("SELECT count(*) FROM deliveries") == 0
    desk.work_until_over(run_id)
    teller.work()
    assert [told[4]["succeeded"] for told in teller.hooked] == [2]
    audit(desk, sandbox)


def test_a_plugin_is_told_that_a_run_was_cancelled(desk: DeskDriver, tmp_path: Path) -> None:
    teller = Teller(desk, tmp_path, hook=True)
    run_id = teller.start(2)
    wishes.ask_cancel_run(run_id, actor="tester")
    desk.work_until_over(run_id)
    teller.work()
    ((_, told, state, _, counts),) = teller.hooked
    assert (told, state, counts["stopped"]) == (run_id, "cancelled", 2)


def test_a_plugin_that_cannot_be_told_hurts_nothing_and_is_told_later_with_the_same_key(
    desk: DeskDriver, tmp_path: Path
) -> None:
    teller = Teller(desk, tmp_path, hook=True)
    teller.destination()
    run_id = teller.run(2)
    desk.perform("deliver", desk.scalar("SELECT id FROM deliveries WHERE kind = 'news'"))
    hook: Any = desk.scalar("SELECT id FROM deliveries WHERE kind = 'hook'")
    teller.order("refuse")
    desk.perform("deliver", hook)
    teller.work()
    assert [state for *_, state in teller.states()] == ["delivered", "delivered"]
    assert len(teller.hooked) == 1 and len(teller.keys) == 2
    assert desk.status(run_id).state == "finished"
    assert "Telling plugin 'testing' failed, and is tried again in 10 seconds" in teller.events()[0]


def test_a_plugin_that_is_gone_fails_with_words(desk: DeskDriver, tmp_path: Path) -> None:
    teller = Teller(desk, tmp_path, hook=True)
    teller.run(1)
    desk.perform("deliver", teller.only(kind="news").id)
    desk.desk.registry = type(desk.desk.registry)()
    teller.work()
    assert teller.only().state == "failed" and "The plugin is not there any more" in teller.only().reason
