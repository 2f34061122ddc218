"""What machines and the home page are told about the installation."""

from __future__ import annotations

from flask import Flask
from support.desk import DeskDriver, documents, make_settings
from support.visitor import Visitor

from webapp import create_app, db, jobs
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
    jobs.beat("worker one", "worker")
    assert degraded(visitor) == ["clock"]
    jobs.beat("clock one", "clock")
    assert degraded(visitor) == []
    with db.transaction() as tx:
        db.run(tx, "UPDATE processes SET seen_at = now() - interval '61 seconds' WHERE role = 'worker'")
    assert degraded(visitor) == ["workers"]


def test_an_api_that_fails_twice_in_a_row_is_told(visitor: Visitor, viewer: Visitor, desk: DeskDriver) -> None:
    desk.start(documents(1))
    with db.transaction() as tx:
        db.run(
            tx,
            "INSERT INTO steps (step, target_id, failures, error) VALUES ('poll', 1, 2, 'No answer: connection reset')",
        )

    assert "API" in degraded(visitor)
    assert "No answer: connection reset" in viewer.get("/")


def test_a_queue_that_is_away_is_told_and_pages_still_come(viewer: Visitor, visitor: Visitor, app: Flask) -> None:
    app.extensions["batchdesk.redis"] = jobs.connect("redis://127.0.0.1:1/0", patient=False)

    assert "queue" in degraded(visitor)
    assert "does not answer" in viewer.get("/")


def test_without_a_database_it_is_not_ready_and_pages_say_so(services: Services, viewer: Visitor) -> None:
    gone = services.database_url.replace("/batchdesk?", "/no_such_database?", 1)
    away = Visitor(create_app(make_settings(gone, services, sandbox_url=None)))

    response = away.open("/readyz")
    assert (response.status_code, response.json) == (503, {"error": "The database does not answer."})
    assert away.open("/healthz").status_code == 200
    page = away.send("/login", email="a@example.com", password="whatever it is")
    assert page.status_code == 503 and "Not available just now" in page.text

    session = viewer.client.get_cookie("session")
    assert session is not None
    away.client.set_cookie("session", session.value)
    page = away.open("/runs/")
    assert page.status_code == 503 and "Not available just now" in page.text
    assert away.open("/readyz").status_code == 503


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
