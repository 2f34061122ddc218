"""Payloads of runs that are long over go when the installation wants it; the books stay, and nothing else goes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Picture
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox

from webapp import db, wishes, workers
from webapp.batches import auditing
from webapp.batches.naming import new_token
from webapp.batches.reprocessing import Which
from webapp.batches.states import FailureClass
from webapp.batches.steps import StepName, due
from webapp.errors import Refused
from webapp.runs import retention

DAYS = 30
KEPT = ("items", "requests", "outputs", "ledger_lines", "tallies", "ledger_tallies", "batches", "subjects")


@pytest.fixture(autouse=True)
def thirty_days(desk: DeskDriver) -> None:
    desk.change(keep_payloads=DAYS)


def age(desk: DeskDriver, run_id: int, days: int = DAYS + 1) -> None:
    """Let a run have been over for so long."""
    desk.execute(
        "UPDATE runs SET state_since = now() - make_interval(days => :days) WHERE id = :id", days=days, id=run_id
    )


def look(desk: DeskDriver) -> None:
    """Have the step look, and do all that it finds."""
    retention.wake(desk.desk.settings)
    desk.execute("UPDATE steps SET due_at = now() WHERE step = 'drop'")
    for _ in range(50):
        if not desk.perform_due():
            return
    raise AssertionError(desk.rows("SELECT * FROM steps"))


def payloads(desk: DeskDriver, run_id: int) -> tuple[int, int]:
    """(own parts, lines of results) of a run that are stored."""
    own = "SELECT count(*) FROM item_params p JOIN items i ON i.id = p.item_id WHERE i.run_id = :id"
    lines = (
        "SELECT count(s.line) FROM results s JOIN requests r ON r.id = s.request_id JOIN items i ON i.id = r.item_id "
        "WHERE i.run_id = :id"
    )
    return desk.scalar(own, id=run_id), desk.scalar(lines, id=run_id)


def books(desk: DeskDriver) -> dict[str, list[Any]]:
    """All rows that are to stay, whole."""
    rows = {table: desk.rows(f"SELECT t::text FROM {table} t ORDER BY 1") for table in KEPT}
    rows["results"] = desk.rows(
        "SELECT request_id, kind, stop_reason, error_type, error_message, size, received_at FROM results ORDER BY 1"
    )
    return rows


def test_the_payloads_of_a_run_that_is_long_over_go_and_its_books_stay(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(invalid_share=0.3)
    old = desk.run(documents(20))
    young = desk.run(documents(5))
    age(desk, old)
    before, exported = books(desk), desk.outputs(old)
    look(desk)
    assert payloads(desk, old) == (0, 0)
    assert payloads(desk, young) == (5, 5)
    assert books(desk) == before and desk.outputs(old) == exported
    told = desk.rows("SELECT reason FROM events WHERE run_id = :id AND actor = 'drop'", id=old)
    assert [one.reason for one in told] == [
        "Its payloads are dropped: it has been over for 30 days. Outputs, costs and counts stay."
    ]
    assert auditing.faults() == []
    audit(desk, sandbox)


def test_nothing_goes_where_payloads_are_kept_for_ever(desk: DeskDriver) -> None:
    run_id = desk.run(documents(3))
    age(desk, run_id, 10_000)
    desk.change(keep_payloads=0)
    retention.wake(desk.desk.settings)
    assert desk.scalar("SELECT count(*) FROM steps WHERE step = 'drop'") == 0
    with db.transaction() as tx:  # left from when they were not
        due(tx, StepName.DROP, retention.TARGET)
    desk.perform_due()
    assert payloads(desk, run_id) == (3, 3)
    assert desk.scalar("SELECT count(*) FROM steps WHERE step = 'drop'") == 0


def test_the_clock_has_the_step_look_when_it_starts(desk: DeskDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webapp.workers.nudge", lambda: os.kill(os.getpid(), signal.SIGTERM))
    before = [(one, signal.getsignal(one)) for one in (signal.SIGTERM, signal.SIGINT)]
    try:
        workers.clock()
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    assert desk.scalar("SELECT count(*) FROM steps WHERE step = 'drop' AND due_at <= now()") == 1


def test_a_run_that_is_not_over_keeps_all_however_old_it_is(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(delay=1000)
    run_id = desk.start(documents(3))
    desk.perform_until("in_progress")
    age(desk, run_id, 1000)
    look_once(desk)
    assert payloads(desk, run_id) == (3, 0)
    desk.execute("UPDATE runs SET state = 'paused' WHERE id = :id", id=run_id)
    look_once(desk)
    assert payloads(desk, run_id) == (3, 0)


def look_once(desk: DeskDriver) -> None:
    """Have the step look, while others are due."""
    retention.wake(desk.desk.settings)
    desk.execute("UPDATE steps SET due_at = now() WHERE step = 'drop'")
    desk.perform("drop", retention.TARGET)


def test_answers_that_are_not_processed_keep_their_run_whole(desk: DeskDriver) -> None:
    run_id = desk.start(documents(3))
    desk.perform_until("done")
    desk.execute("UPDATE runs SET state = 'cancelled' WHERE id = :id", id=run_id)
    desk.execute("DELETE FROM steps")
    age(desk, run_id)
    look_once(desk)
    assert payloads(desk, run_id) == (3, 3)
    assert desk.scalar("SELECT payloads_dropped_at FROM runs WHERE id = :id", id=run_id) is None


def test_what_was_asked_for_before_is_done_first(desk: DeskDriver) -> None:
    run_id = desk.run(documents(3))
    age(desk, run_id)
    wishes.ask_reprocess(run_id, Which.ALL, version=desk.desk.registry.task("classify").version, actor="tester")
    look_once(desk)
    assert payloads(desk, run_id) == (3, 3)
    look(desk)
    assert desk.scalar("SELECT count(*) FROM former_outputs") == 3
    assert payloads(desk, run_id) == (0, 0)


def test_a_killed_step_goes_on_where_it_was(desk: DeskDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "PAGE", 4)
    run_id = desk.run(documents(10))
    age(desk, run_id)
    monkeypatch.setattr(retention, "TURN_SECONDS", 0.0)  # its turn is over before the first chunk
    look_once(desk)
    assert payloads(desk, run_id) == (10, 10)
    with pytest.raises(Refused):
        wishes.ask_refetch(desk.scalar("SELECT min(id) FROM batches"), actor="tester")
    monkeypatch.setattr(retention, "TURN_SECONDS", 20.0)
    monkeypatch.setattr("webapp.batches.leaving.look", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        look_once(desk)
    assert payloads(desk, run_id) == (6, 6)
    monkeypatch.undo()
    desk.lapse()
    look(desk)
    assert payloads(desk, run_id) == (0, 0)
    assert desk.scalar("SELECT count(*) FROM events WHERE actor = 'drop'") == 1
    assert auditing.faults() == []


def test_what_needs_a_dropped_payload_is_refused_in_words(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(invalid_share=1.0)
    failed = desk.run(documents(2))
    sandbox.configure(invalid_share=0.0)
    good = desk.run(documents(2))
    age(desk, failed)
    age(desk, good)
    look(desk)
    day = f"{db.utcnow():%Y-%m-%d}"
    request_id = desk.scalar("SELECT max(id) FROM requests")
    version = desk.desk.registry.task("classify").version
    asked = (
        lambda: wishes.ask_resubmit(failed, list(FailureClass), actor="tester"),
        lambda: wishes.ask_reprocess(good, Which.ALL, version=version, actor="tester"),
        lambda: wishes.ask_reprocess_request(request_id, version=version, actor="tester"),
        lambda: wishes.ask_refetch(desk.scalar("SELECT max(id) FROM batches"), actor="tester"),
    )
    for ask in asked:
        with pytest.raises(Refused, match=f"was dropped on {day}, some time after it was over"):
            ask()
    assert [
        one.step for one in desk.rows("SELECT step FROM steps WHERE step IN ('resubmit', 'ingest', 'process')")
    ] == []
    child = wishes.ask_rebuild(failed, None, {"labels": "alpha,beta"}, actor="tester", token=new_token())
    desk.work_until_over(child.run_id)
    assert desk.summary(child.run_id).succeeded == 2


def pictures(folder: Path, *shades: int) -> Path:
    folder.mkdir()
    for shade in shades:
        Picture.new("RGB", (8, 8), (shade, shade, shade)).save(folder / f"{shade}.png")
    return folder


def lose(desk: DeskDriver, *keys: str) -> None:
    """Let records be gone from the next revision of their dataset, and the imports of all images be long ago."""
    desk.execute("UPDATE subjects SET gone_in = 2 WHERE key = ANY(:keys)", keys=list(keys))
    desk.execute("UPDATE datasets SET revision = 2, subjects = subjects - :gone", gone=len(keys))
    desk.execute("UPDATE blobs SET wanted_at = now() - interval '2 days'")


def test_images_go_that_no_record_and_no_run_with_payloads_needs(desk: DeskDriver, tmp_path: Path) -> None:
    run_id = desk.start_folder(pictures(tmp_path / "pictures", 1, 2, 3), "alt_text")
    desk.work_until_over(run_id)
    lose(desk, "1.png", "2.png")
    age(desk, run_id)
    desk.execute("UPDATE blobs SET wanted_at = now() WHERE sha256 = (SELECT image FROM subjects WHERE key = '2.png')")
    look(desk)
    left = "SELECT s.key FROM blobs b JOIN subjects s ON s.image = b.sha256 ORDER BY 1"
    assert [key for (key,) in desk.rows(left)] == ["2.png", "3.png"]  # one was imported again just now
    with pytest.raises(Refused, match="1 of its records has an image that was dropped"):
        wishes.ask_rebuild(run_id, None, {}, actor="tester", token=new_token())
    assert auditing.faults() == []


def test_the_images_of_a_run_that_keeps_its_payloads_stay(desk: DeskDriver, tmp_path: Path) -> None:
    run_id = desk.start_folder(pictures(tmp_path / "pictures", 1, 2), "alt_text")
    desk.work_until_over(run_id)
    lose(desk, "1.png", "2.png")
    look(desk)
    assert desk.scalar("SELECT count(*) FROM blobs") == 2


def test_a_record_whose_image_was_dropped_fails_by_name(desk: DeskDriver, tmp_path: Path) -> None:
    run_id = desk.start_folder(pictures(tmp_path / "pictures", 1, 2), "alt_text")
    desk.execute("DELETE FROM blobs WHERE sha256 = (SELECT image FROM subjects WHERE key = '1.png')")
    desk.work_until_over(run_id)
    told = desk.rows("SELECT state, error FROM items ORDER BY position")
    assert [one.state for one in told] == ["errored", "succeeded"]
    assert "The image of record '1.png' was dropped" in told[0].error


def test_doctor_tells_what_is_stored_and_what_would_go(desk: DeskDriver) -> None:
    run_id = desk.run(documents(4))
    with db.transaction() as tx:
        assert retention.stored(tx, DAYS)[1:] == (0, 0, 0)
        assert retention.stored(tx, 0)[1:] == (1, 4, 0)
    age(desk, run_id)
    with db.transaction() as tx:
        assert retention.stored(tx, DAYS)[1:] == (1, 4, 0)
    look(desk)
    with db.transaction() as tx:
        found = retention.stored(tx, DAYS)
    assert found[1:] == (0, 0, 1) and found.size > 0


def test_the_room_of_dropped_payloads_is_used_again(desk: DeskDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "PAGE", 100)
    monkeypatch.setattr(retention, "VACUUM_ROWS", 100)
    run_id = desk.run(documents(400, size=2000))
    age(desk, run_id)
    sizes = "SELECT pg_total_relation_size('item_params'), pg_relation_size('results')"
    ((own, lines),) = desk.rows(sizes)
    look(desk)
    assert payloads(desk, run_id) == (0, 0)
    vacuumed = "SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 'results'"
    assert desk.scalar(vacuumed) >= 1
    for _ in range(100):  # somebody else's transaction may have been about that moment
        if desk.scalar("SELECT pg_relation_size('item_params')") == 0:
            break
        db.vacuum(*retention.TABLES)
    desk.run(documents(400, size=2000))
    ((own_now, lines_now),) = desk.rows(sizes)
    assert own_now <= own and lines_now < 1.5 * lines  # the former lines' rows stay, narrow
