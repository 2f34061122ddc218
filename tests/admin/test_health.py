"""What machines and the home page are told about the installation."""

from __future__ import annotations

from flask import Flask
from redis import Redis
from support.desk import DeskDriver, documents, make_settings
from support.sandbox import Sandbox
from support.services import FULL
from support.visitor import Visitor

from webapp import (
    create_app,
    db,
    hearts,
    jobs,
)
from webapp.local import Services


def degraded(visitor: Visitor) -> list[str]:
    response = visitor.open("/readyz")
    assert response.status_code == 200
    assert response.json is not None
    return list(response.json["degraded"])


def test_a_process_that_is_up_says_so(visitor: Visitor) -> None:
    assert visitor.open("/healthz").json == {"status": "ok"}


def test_workers_and_clock_count_while_their_heartbeat_is_fresh(visitor: Visitor, app: Flask) -> None:
    assert degraded(visitor) == ["workers", "clock"]
    hearts.beat("worker one", "worker")
    assert degraded(visitor) == ["clock"]
    hearts.beat("clock one", "clock")
    assert degraded(visitor) == []
    with db.transaction() as tx:
        db.run(tx, "UPDATE processes SET seen_at = now() - interval '61 seconds' WHERE role = 'worker'")
    assert degraded(visitor) == ["workers"]


def test_an_api_that_fails_twice_in_a_row_is_told(
    visitor: Visitor, viewer: Visitor, desk: DeskDriver, sandbox: Sandbox
) -> None:
    desk.start(documents(1))
    desk.perform_until("in_progress")
    sandbox.configure(retrieve_faults="529*")
    for _ in range(2):
        assert "API" not in degraded(visitor)
        desk.hurry()
        desk.perform_due()

    assert "API" in degraded(visitor)
    page = viewer.get("/")
    assert "The API does not answer" in page and "Overloaded" in page
    sandbox.configure(retrieve_faults="")
    desk.hurry()
    desk.perform_due()
    assert "API" not in degraded(visitor)


def test_a_disk_that_is_full_is_told(visitor: Visitor, viewer: Visitor, desk: DeskDriver) -> None:
    desk.execute("UPDATE outages SET words = 'No space left on device', times = 1, seen_at = now() WHERE part = 'disk'")

    assert "disk" in degraded(visitor)
    page = viewer.get("/")
    assert "disk is full: make room" in page and "No space left on device" in page


def test_a_queue_that_is_away_is_told_and_pages_still_come(viewer: Visitor, visitor: Visitor, app: Flask) -> None:
    app.extensions["batchdesk.redis"] = jobs.connect("redis://127.0.0.1:1/0", patient=False)

    assert "queue" in degraded(visitor)
    page = viewer.get("/")
    assert "takes nothing" in page and "Connection refused" in page


def test_a_queue_that_may_only_be_read_is_told(visitor: Visitor, services: Services) -> None:
    with Redis.from_url(services.redis_url) as queue:
        queue.config_set("min-replicas-to-write", 1)
        try:
            assert "queue" in degraded(visitor)
        finally:
            queue.config_set("min-replicas-to-write", 0)
    assert "queue" not in degraded(visitor)


def test_what_is_asked_while_the_queue_is_away_is_noted_and_said_to_wait(
    operator: Visitor, app: Flask, desk: DeskDriver
) -> None:
    run_id = desk.start(documents(3))
    there = app.extensions["batchdesk.redis"]
    app.extensions["batchdesk.redis"] = jobs.connect("redis://127.0.0.1:1/0", patient=False)
    page = operator.post(f"/runs/{run_id}/cancel")
    assert f"Run {run_id} is being cancelled." in page and "It is noted, and waits: the queue" in page
    assert desk.scalar("SELECT cancel_wanted_at FROM runs") is not None

    app.extensions["batchdesk.redis"] = there
    assert jobs.nudge() == 1
    assert desk.work_until_over(run_id).state == "cancelled"


def test_without_a_database_it_is_not_ready_and_pages_say_so(services: Services, viewer: Visitor) -> None:
    gone = services.database_url.replace("/batchdesk?", "/no_such_database?", 1)
    away = Visitor(create_app(make_settings(gone, services, sandbox_url=None)))

    response = away.open("/readyz")
    assert (response.status_code, response.json) == (503, {"error": "The database does not answer."})
    assert away.open("/healthz").status_code == 200
    page = away.send("/login", email="a@example.com", password="whatever it is")
    assert page.status_code == 503 and "Not available just now" in page.text
    assert "may not have been done" in page.text and "http-equiv" not in page.text

    session = viewer.client.get_cookie("session")
    assert session is not None
    away.client.set_cookie("session", session.value)
    page = away.open("/runs/")
    assert page.status_code == 503 and "Not available just now" in page.text
    # It is asked for again by itself, what was sent is not.
    assert page.headers["Retry-After"] == "5" and 'http-equiv="refresh" content="5"' in page.text
    page = away.open("/runs/", headers={"Accept": "application/json"})
    assert page.json == {"error": "The database does not answer. Work goes on where it was left once it is back."}
    assert away.open("/readyz").status_code == 503


def test_without_room_on_the_databases_disk_a_page_says_so(operator: Visitor, desk: DeskDriver) -> None:
    run_id = desk.start(documents(3))
    desk.execute(FULL)
    desk.execute("CREATE TRIGGER full_disk BEFORE UPDATE ON runs FOR EACH ROW EXECUTE FUNCTION full_disk()")

    page = operator.send(f"/runs/{run_id}/cancel")
    assert page.status_code == 503 and "no room left on its disk" in page.text and "look before" in page.text


def test_a_statement_that_is_at_fault_is_no_outage(app: Flask, viewer: Visitor) -> None:
    app.config["PROPAGATE_EXCEPTIONS"] = False
    with db.transaction() as tx:
        db.run(tx, "ALTER TABLE runs RENAME COLUMN owner TO holder")
    page = viewer.open("/runs/")
    assert page.status_code == 500 and "Something broke" in page.text


def test_progress_is_answered_for_the_rows_of_a_page(viewer: Visitor, desk: DeskDriver) -> None:
    run_id = desk.run(documents(3))

    response = viewer.open(f"/live?run={run_id}&run=999&run=x&batch=1&stamp_run_id={run_id}")
    seen = response.json
    assert seen is not None
    assert set(seen["bars"]) == {f"run-{run_id}", "batch-1"}
    assert "3 of 3 subjects settled: 3 succeeded" in seen["bars"][f"run-{run_id}"]
    assert seen["stamp"] == desk.scalar("SELECT max(id) FROM events WHERE run_id = :id", id=run_id)


def test_progress_is_not_answered_to_those_who_are_signed_out(visitor: Visitor) -> None:
    response = visitor.open("/live", headers={"Accept": "application/json"})

    assert response.status_code == 401 and response.json is not None
