"""The pages of destinations, and deliveries where a person meets them: on a run's page, at home, in the forms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.delivering import Teller
from support.desk import DeskDriver
from support.visitor import Visitor

from webapp import wishes
from webapp.batches.alarms import alarms
from webapp.batches.naming import new_token
from webapp.db import transaction
from webapp.delivery import delivering

TABLE = {"set-url": "env:WAREHOUSE_URL", "set-table": "labels", "set-identity": "key", "set-fields": "label"}


@pytest.fixture
def operator(person: Callable[[str | None], Visitor]) -> Visitor:
    return person("operator")


def test_a_page_without_destinations_says_what_to_do_next(operator: Visitor) -> None:
    page = operator.get("/destinations/")
    assert "/destinations/new" in page and "batchdesk destinations add" in page
    assert "Table of a SQL database" in operator.get("/destinations/new")


def test_a_destination_is_saved_changed_switched_and_deleted(operator: Visitor, desk: DeskDriver) -> None:
    form = operator.get("/destinations/new?sink=sql_table")
    assert "write env:NAME" in form and "Nothing is sent by saving it" in form
    saved = operator.send("/destinations/new?sink=sql_table", name="warehouse", **TABLE)
    assert saved.status_code == 303 and saved.headers["Location"].endswith("/destinations/1/")
    page = operator.get("/destinations/1/")
    assert "warehouse" in page and "env:WAREHOUSE_URL" in page and "Nothing has been delivered here yet" in page
    assert operator.send("/destinations/1/edit", **TABLE | {"set-table": "others"}).status_code == 303
    assert '"others"' in desk.scalar("SELECT settings::text FROM destinations")
    operator.send("/destinations/1/disable")
    assert "waits until it is enabled" in operator.get("/destinations/1/")
    operator.send("/destinations/1/enable")
    assert desk.scalar("SELECT enabled FROM destinations")
    assert "Delete warehouse?" in operator.get("/destinations/1/delete")
    operator.send("/destinations/1/delete")
    assert desk.rows("SELECT 1 FROM destinations") == []
    told = desk.rows("SELECT reason FROM events WHERE target_kind = 'destination' ORDER BY id")
    verbs = [reason.rstrip(".").split()[2] for (reason,) in told]
    assert verbs == ["made,", "changed", "disabled", "enabled", "deleted"]


def test_what_is_wrong_with_a_destination_is_said_beside_the_field(operator: Visitor, desk: DeskDriver) -> None:
    page = operator.send("/destinations/new?sink=sql_table", name="a b", **TABLE | {"set-url": "postgresql://x"}).text
    assert "Write a letter or digit" in page and "write env:NAME" in page and "a b" in page
    operator.send("/destinations/new?sink=sql_table", name="warehouse", **TABLE)
    page = operator.send("/destinations/new?sink=sql_table", name="warehouse", **TABLE).text
    assert "There is a destination" in page and "already" in page
    assert desk.scalar("SELECT count(*) FROM destinations") == 1
    assert "Choose what takes" in operator.get("/destinations/new?sink=nonsense")
    for path in ("/destinations/9/", "/destinations/9/edit", "/destinations/9/delete"):
        operator.get(path, 404)
    assert operator.send("/destinations/deliveries/9/again").status_code == 404


def test_a_run_is_started_with_its_destinations_and_repeated_with_them(
    operator: Visitor, desk: DeskDriver, tmp_path: Path
) -> None:
    teller = Teller(desk, tmp_path)
    teller.destination()
    teller.destination("elsewhere")
    first = teller.run(2, to="")
    form = operator.get(f"/runs/new?repeat={first}")
    assert 'name="to" value="there"' in form and "checked" not in form.partition("Where the outputs go")[2][:700]
    settings = {"set-model": "claude-haiku-5-5", "set-max_tokens": "100", "set-effort": ""}
    preview = operator.send(f"/runs/new?repeat={first}", do="preview", to="there", **settings).text
    assert "Outputs go to" in preview and '<input type="hidden" name="to" value="there">' in preview
    started = operator.send(f"/runs/new?repeat={first}", do="start", to="there", token=new_token(), **settings)
    assert started.status_code == 303
    assert [tuple(row) for row in desk.rows("SELECT run_id, destination_id FROM run_destinations")] == [(2, 1)]
    assert "Once it is over, its outputs go to" in operator.get("/runs/2/")
    again = operator.get("/runs/new?repeat=2").partition("Where the outputs go")[2]
    assert 'value="there" checked' in again and 'value="elsewhere" checked' not in again
    gone = operator.send(f"/runs/new?repeat={first}", do="start", to="nowhere", token=new_token(), **settings).text
    assert "There is no destination" in gone
    desk.work_until_over(2)
    teller.work()
    page = operator.get("/runs/2/")
    assert "delivered" in page and "2 outputs were delivered" in page


def test_a_schedule_names_the_destinations_of_its_runs(operator: Visitor, desk: DeskDriver, tmp_path: Path) -> None:
    teller = Teller(desk, tmp_path)
    teller.destination()
    teller.run(2, to="there")
    fields = {"name": "Nightly", "every": "day", "at": "02:00", "on": "1", "cron": "", "zone": "UTC", "over": "all"}
    fields |= {"set-model": "claude-haiku-5-5", "set-max_tokens": "100", "set-effort": ""}
    assert 'value="there" checked' in operator.get("/schedules/new?repeat=1")
    made = operator.send("/schedules/new?repeat=1", to="there", token=new_token(), **fields)
    assert made.status_code == 303
    assert "/destinations/1/" in operator.get("/schedules/1/") and "schedule 1" in operator.get(
        "/destinations/1/delete"
    )
    desk.execute("UPDATE schedules SET next_at = now()")
    desk.execute("UPDATE steps SET due_at = now() WHERE step = 'repeat'")
    desk.perform("repeat", 1)
    assert [tuple(row) for row in desk.rows("SELECT run_id FROM run_destinations ORDER BY 1")] == [(1,), (2,)]
    operator.send("/destinations/1/disable")
    assert operator.send("/schedules/1/edit", to="there", **fields).status_code == 303, "what it names, it may keep"
    assert operator.send("/schedules/1/edit", **fields).status_code == 303
    assert desk.rows("SELECT 1 FROM schedule_destinations") == []
    operator.send("/schedules/1/delete")


def test_a_delivery_that_has_failed_is_shown_and_tried_again_with_one_click(
    operator: Visitor, desk: DeskDriver, tmp_path: Path, person: Callable[[str | None], Visitor]
) -> None:
    teller = Teller(desk, tmp_path)
    teller.destination()
    run_id = teller.run(2)
    desk.execute("UPDATE deliveries SET failures = :most WHERE kind = 'sink'", most=delivering.MOST_FAILURES - 1)
    teller.order("refuse")
    desk.perform("deliver", teller.only().id)
    again = f"/destinations/deliveries/{teller.only().id}/again"
    viewer = person("viewer")
    for path in ("/", f"/runs/{run_id}/", "/destinations/1/"):
        assert "not now" in operator.get(path) and again in operator.get(path), path
        assert again not in viewer.get(path)
    with transaction() as tx:
        assert [one.about for one in alarms(tx) if one.delivery_id] == [f"Run {run_id}"]
    clicked = operator.send(again, back=f"/runs/{run_id}/")
    assert clicked.headers["Location"] == f"/runs/{run_id}/"
    teller.work()
    assert teller.only().state == "delivered" and again not in operator.get("/")
    operator.send(again)
    assert "nothing to try again" in operator.get("/")


def test_a_delivery_that_waits_says_for_what(operator: Visitor, desk: DeskDriver, tmp_path: Path) -> None:
    teller = Teller(desk, tmp_path)
    teller.destination()
    run_id = teller.run(1)
    teller.order("refuse")
    desk.perform("deliver", teller.only().id)
    assert "Tried 1 time; again in 1 minute" in operator.get(f"/runs/{run_id}/")
    wishes.ask_switch_destination(1, on=False, actor="t")
    desk.hurry()
    desk.perform("deliver", teller.only().id)
    assert "The destination is disabled" in operator.get(f"/runs/{run_id}/")
