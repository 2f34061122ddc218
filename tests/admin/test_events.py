"""The list of events: what it finds, what it reads for that, who gets what of it."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime

import pytest
from flask import Flask
from sqlalchemy import Connection
from support.desk import DeskDriver, documents
from support.people import make_person
from support.visitor import Visitor

from webapp import db
from webapp.admin.eventlist import WINDOW, Wanted, find, kinds
from webapp.admin.filters import Cursor
from webapp.batches import books, whence
from webapp.batches.states import RunState, move_run


def day(year: int, month: int, number: int) -> datetime:
    """The start of a day in UTC."""
    return datetime(year, month, number, tzinfo=UTC)


FIRST = Cursor(None, None)
ALL = 300_000
# A person who did a third of all there is, all of it long ago; one who did little; and what happens all the time.
FORMER, RARE, USUAL = "former@desk.example", "rare@desk.example", "ingest"


def test_each_act_says_who_and_from_where(operator: Visitor, desk: DeskDriver) -> None:
    run_id = desk.start(documents(3))
    operator.post(f"/runs/{run_id}/pause")

    wish = desk.rows("SELECT actor, address FROM events WHERE reason = 'Pause asked for.'")
    assert [tuple(one) for one in wish] == [("operator@desk.example", "127.0.0.1")]
    steps = desk.rows("SELECT DISTINCT address FROM events WHERE actor <> 'operator@desk.example'")
    assert [one.address for one in steps] == [None], "steps act from nowhere"


def test_moves_and_notes_take_the_place_that_is_set(app: Flask, desk: DeskDriver) -> None:
    run_id = desk.start(documents(1))
    whence.act_from(whence.COMMAND_LINE)
    with db.transaction() as tx:
        move_run(tx, run_id, RunState.CANCELLED, actor="root")
        books.note(tx, run_id=run_id, actor="root", reason="a note", target=("dataset", "x\0y"))
    whence.act_from(None)

    rows = desk.rows("SELECT kind, address, target FROM events WHERE actor = 'root' ORDER BY id")
    assert [tuple(row) for row in rows] == [("move", "command line", None), ("note", "command line", "x\\u0000y")]


@pytest.fixture
def story(app: Flask, desk: DeskDriver) -> int:
    """A run of one batch, and somebody who failed to sign in; the id of the run."""
    run_id = desk.run(documents(2))
    Visitor(app).send("/login", email=make_person("viewer", "ann"), password="wrong")
    return run_id


def test_events_lead_to_what_they_are_about(viewer: Visitor, story: int) -> None:
    page = viewer.get("/events/")

    assert f'href="/runs/{story}/"' in page and 'href="/batches/1/"' in page
    assert "The password was wrong." in page and "ann@desk.example" in page
    assert '<a href="/events/"' in viewer.get("/")


@pytest.mark.parametrize(
    ("query", "there", "not_there"),
    [
        ("kind=sign_in_failed", ["password was wrong"], ["state-finished"]),
        ("who=not+signed+in", ["password was wrong"], ["Signed in."]),
        ("who=viewer@desk.example", ["Signed in."], ["password was wrong"]),
        ("run=1", ["state-finished", "state-done"], ["Signed in."]),
        ("batch=1", ["state-done"], ["state-finished", "Signed in."]),
        ("batch=1&kind=move&who=poll", ["state-ingesting"], ["state-submitting"]),
        ("q=PASSWORD", ["password was wrong"], ["Signed in."]),
        ("q=ann@", ["password was wrong"], ["Signed in."]),
        ("from=2000-01-01&to=2999-12-31", ["Signed in."], []),
        ("from=2999-01-01", ["No event fits"], ["Signed in."]),
        ("to=2000-01-01", ["No event fits"], ["Signed in."]),
        ("q=%25", ["No event fits"], ["Signed in."]),
    ],
)
def test_filters_leave_what_fits(
    viewer: Visitor, story: int, query: str, there: list[str], not_there: list[str]
) -> None:
    page = viewer.get(f"/events/?{query}")

    assert all(words in page for words in there)
    assert not [words for words in not_there if words in page]


@pytest.mark.parametrize(
    "query",
    ["from=yesterday", "to=0000-00-00", "from=9999-12-31", "to=9999-12-31", "from=0001-01-01", "kind=nothing",
     "run=x", "batch=-1", "q=%00", "who=%00", "older=x", "from=2026-02-30"],
)  # fmt: skip
def test_a_filter_that_makes_no_sense_is_left_out_with_a_sentence(viewer: Visitor, story: int, query: str) -> None:
    page = viewer.get(f"/events/?{query}")

    assert "It was left out." in page and "Signed in." in page


def test_addresses_are_for_admins(viewer: Visitor, admin: Visitor, story: int) -> None:
    assert "127.0.0.1" in admin.get("/events/")
    page = viewer.get("/events/")
    assert "127.0.0.1" not in page and "From where" not in page and "/events/export" not in page
    for form in ("jsonl", "csv"):
        assert "This is for admins" in viewer.get(f"/events/export.{form}", 403)


def test_admins_take_the_events_away(admin: Visitor, story: int, desk: DeskDriver) -> None:
    desk.execute(
        "INSERT INTO events (kind, actor, reason) VALUES ('note', '=cmd()', :r)", r='a "quote"\r\nand\u202e more'
    )
    total = desk.scalar("SELECT count(*) FROM events")

    lines = [json.loads(line) for line in admin.get("/events/export.jsonl").splitlines()]
    assert len(lines) == total and lines[0]["who"] == "=cmd()" and lines[0]["words"] == 'a "quote"\r\nand\u202e more'
    assert [line["id"] for line in lines] == sorted((line["id"] for line in lines), reverse=True)
    response = admin.open("/events/export.csv?run=1&kind=move")
    rows = list(csv.DictReader(io.StringIO(response.get_data(as_text=True), newline="")))
    assert {row["run"] for row in rows} == {"1"} and rows[0]["to"] == "finished"
    assert response.headers["Content-Disposition"] == "attachment; filename=events.csv"
    whole = list(csv.DictReader(io.StringIO(admin.get("/events/export.csv"), newline="")))
    assert whole[0]["who"] == "'=cmd()"


def test_a_download_with_a_filter_that_makes_no_sense_is_none(admin: Visitor, story: int) -> None:
    assert "It was left out." in admin.get("/events/export.jsonl?from=soon", 400)


@pytest.fixture
def large(app: Flask) -> None:
    """300,000 events of a hundred days."""
    with db.transaction() as tx:
        db.run(
            tx,
            """
            INSERT INTO events (at, run_id, batch_id, kind, actor, reason)
            SELECT timestamptz '2026-01-01 UTC' + n * interval '100 days' / 300000, 1 + n / 30000, 1 + n / 3000,
                   CASE WHEN n % 1000 = 7 THEN 'wish' WHEN n % 3 = 0 THEN 'note' ELSE 'move' END,
                   CASE WHEN n % 30000 = 5 THEN 'rare@desk.example' WHEN n < 150000 AND n % 3 <> 1 THEN
                   'former@desk.example' ELSE 'ingest' END, 'Event ' || n FROM generate_series(0, 299999) n
            """,
        )
    with db.db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE events")


CASES = {
    "newest": (Wanted(), FIRST, 51, 1_000),
    "deep": (Wanted(), Cursor(20_000, None), 51, 1_000),
    "oldest": (Wanted(), Cursor(None, 0), 51, 1_000),
    "run": (Wanted(run_id=3), FIRST, 51, 1_000),
    "run that is not there": (Wanted(run_id=77), FIRST, 0, 1_000),
    "batch": (Wanted(batch_id=7), FIRST, 51, 1_000),
    "batch and kind": (Wanted(batch_id=7, kind="wish"), FIRST, 3, 8_000),
    "batch and words": (Wanted(batch_id=7, words="event 18007"), FIRST, 1, 8_000),
    "who, long ago": (Wanted(who=FORMER), FIRST, 51, 1_000),
    "who, going up": (Wanted(who=USUAL), Cursor(None, 0), 51, 1_000),
    "who, seldom": (Wanted(who=RARE), FIRST, 10, 1_000),
    "who, never": (Wanted(who="nobody"), FIRST, 0, 1_000),
    "kind": (Wanted(kind="wish"), FIRST, 51, 1_000),
    "kind, deep": (Wanted(kind="wish"), Cursor(20_000, None), 20, 1_000),
    "days": (Wanted(since=day(2026, 2, 1), until=day(2026, 2, 2)), FIRST, 51, 1_000),
    "one day of one": (Wanted(who=RARE, since=day(2026, 1, 11), until=day(2026, 1, 12)), FIRST, 1, 1_000),
    "before all": (Wanted(until=day(2025, 1, 2)), FIRST, 0, 1_000),
    "after all": (Wanted(since=day(2027, 1, 1)), FIRST, 0, 1_000),
    "words of a day": (Wanted(words="event 93", since=day(2026, 2, 1), until=day(2026, 2, 2)), FIRST, 51, 8_000),
    "words": (Wanted(words="nothing like it"), FIRST, 0, 2 * WINDOW + 1_000),
    "who and words": (Wanted(who=FORMER, words="nothing like it"), FIRST, 0, 2 * WINDOW + 1_000),
}


@pytest.mark.timeout(120)
def test_no_way_to_an_event_reads_more_than_it_must(large: None) -> None:
    told = {}
    for name, (wanted, cursor, expected, most) in CASES.items():
        with db.transaction() as tx:
            before = rows_read(tx)
            found = find(tx, wanted, cursor)
            told[name] = (len(found.rows), rows_read(tx) - before)
        assert told[name][0] == expected, told
        assert told[name][1] <= most, told
    with db.transaction() as tx:
        before = rows_read(tx)
        assert kinds(tx) == ["move", "note", "wish"]
        assert rows_read(tx) - before < 100
    print(told)


def rows_read(tx: Connection) -> int:
    """Rows that this transaction has read of our tables."""
    return int(db.scalar(tx, "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables"))


def test_a_look_for_words_goes_on_where_it_stopped(large: None) -> None:
    wanted = Wanted(words="event 101010")
    cursor, looks = FIRST, 0
    while True:
        with db.transaction() as tx:
            found = find(tx, wanted, cursor)
        looks += 1
        if found.rows or found.stopped_at is None:
            break
        cursor = Cursor(found.stopped_at, None)
    assert [row.reason for row in found.rows] == ["Event 101010"] and looks == 4


def test_an_event_that_was_written_late_is_in_its_day(app: Flask, desk: DeskDriver) -> None:
    """Times are those at which transactions began, ids those of writing: they are not in one order."""
    for minute, words in ((0, "late"), (-5, "early"), (2, "later"), (-4, "last")):
        desk.execute(
            "INSERT INTO events (at, kind, actor, reason) VALUES "
            "(timestamptz '2026-02-01 00:00 UTC' + make_interval(mins => :minute), 'note', 't', :words)",
            minute=minute,
            words=words,
        )
    with db.transaction() as tx:
        found = find(tx, Wanted(since=day(2026, 2, 1), until=day(2026, 2, 2)), FIRST)
    assert [row.reason for row in found.rows] == ["later", "late"]
