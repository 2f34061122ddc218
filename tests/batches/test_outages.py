"""What the steps need is away for a while: they say so in words, lose nothing, and go on by themselves."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis import Redis
from support.audit import audit
from support.desk import DeskDriver, documents, make_settings
from support.sandbox import SandboxProcess
from support.services import FULL

from webapp import create_app, db, jobs
from webapp.batches import leaving, outages
from webapp.batches.steps import StepName
from webapp.errors import Leaving
from webapp.local import Services


def down(desk: DeskDriver) -> dict[str, str]:
    """What is told to be down: its name and the words."""
    with db.transaction() as tx:
        return {part.part: part.words for part in outages.told(tx)}


# -- the API ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def api(tmp_path: Path) -> Iterator[SandboxProcess]:
    """An API that can be ended and started again at its address."""
    with SandboxProcess(tmp_path / "api", delay=0, cancel_delay=0) as process:
        yield process


def performed(desk: DeskDriver, caplog: pytest.LogCaptureFixture) -> None:
    """Everything that is due, three times over, without a traceback."""
    caplog.clear()
    for _ in range(3):
        desk.hurry()
        desk.perform_due()
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize("state", ["planned", "submit_unknown", "in_progress", "ingesting"])
def test_an_api_that_is_down_is_named_and_its_batches_go_on_when_it_is_back(
    database_url: str, services: Services, api: SandboxProcess, caplog: pytest.LogCaptureFixture, state: str
) -> None:
    app = create_app(make_settings(database_url, services, sandbox_url=api.url))
    with app.app_context():
        desk = DeskDriver(app)
        if state == "submit_unknown":
            api.configure(create_faults="drop_after")
        run_id = desk.start(documents(5))
        desk.perform_until(state)
        assert down(desk) == {}
        api.kill()
        performed(desk, caplog)
        assert desk.states() == [state]
        assert "The connection to the API failed" in down(desk)["API"]
        # An hour of it: whatever backs off is asked again at least every five minutes.
        longest = "SELECT max(due_at) < now() + interval '301 seconds' FROM steps"
        for _ in range(8):
            performed(desk, caplog)
            assert desk.scalar(longest)
        assert desk.status(run_id).state == "running"

        with SandboxProcess(api.folder, port=urlsplit(api.url).port or 0, delay=0, cancel_delay=0) as back:
            performed(desk, caplog)
            assert desk.work_until_over(run_id, hurry=True).state == "finished"
            assert down(desk) == {}
            assert desk.summary(run_id).succeeded == 5
            audit(desk, back)
        db.db.engine.dispose()


@pytest.mark.parametrize(
    ("fault", "told"), [("529*", "Overloaded"), ("500*", "Internal server error"), ("drop_before*", "failed")]
)
def test_an_api_that_answers_but_does_nothing_is_down_too(
    desk: DeskDriver, sandbox: SandboxProcess, fault: str, told: str
) -> None:
    run_id = desk.start(documents(5))
    sandbox.configure(create_faults=fault, list_faults=fault, retrieve_faults=fault)
    for _ in range(5):
        desk.hurry()
        desk.perform_due()
    assert told in down(desk)["API"]
    sandbox.configure(create_faults="", list_faults="", retrieve_faults="")
    desk.work_until_over(run_id, hurry=True)
    assert down(desk) == {}
    audit(desk, sandbox)


def test_an_api_that_refuses_is_not_down(desk: DeskDriver, sandbox: SandboxProcess) -> None:
    desk.start(documents(5))
    sandbox.configure(create_faults="429:0*")
    for _ in range(5):
        desk.hurry()
        desk.perform_due()
    assert down(desk) == {}


def test_one_call_that_fails_is_not_told(desk: DeskDriver, sandbox: SandboxProcess) -> None:
    sandbox.configure(retrieve_faults="500")
    run_id = desk.start(documents(5))
    desk.perform_until("in_progress")
    desk.hurry()
    desk.perform_due()
    assert desk.scalar("SELECT times FROM outages WHERE part = 'API'") == 1
    assert down(desk) == {}
    desk.work_until_over(run_id, hurry=True)
    assert desk.scalar("SELECT sum(times) FROM outages") == 0


def test_an_outage_that_nobody_has_met_for_long_is_not_told(desk: DeskDriver) -> None:
    desk.execute("UPDATE outages SET words = 'gone', times = 5, seen_at = now() WHERE part = 'API'")
    assert down(desk) == {"API": "gone"}
    desk.execute("UPDATE outages SET seen_at = now() - interval '11 minutes'")
    assert down(desk) == {}


# -- the database's disk ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "table"), [("plan", "items"), ("plan", "requests"), ("ingest", "results"), ("process", "outputs")]
)
def test_a_step_for_which_the_disk_has_no_room_waits_for_it_in_words(
    desk: DeskDriver, sandbox: SandboxProcess, caplog: pytest.LogCaptureFixture, step: str, table: str
) -> None:
    desk.change(batch_max_requests=10)
    desk.execute(FULL)
    key = "id" if table in ("items", "requests") else "request_id"
    desk.execute(
        f"CREATE TRIGGER full_disk BEFORE INSERT ON {table} FOR EACH ROW WHEN (NEW.{key} % 4 = 3) "
        "EXECUTE FUNCTION full_disk()"
    )
    run_id = desk.start(documents(25))
    while not desk.scalar("SELECT max(failures) FROM steps"):
        desk.hurry()
        desk.perform_due()
    performed(desk, caplog)
    assert [record.getMessage() for record in caplog.records if "disk is full" in record.getMessage()]
    waits = desk.rows("SELECT step, failures, error, due_at > now() + interval '2 seconds' AS later FROM steps")
    (failed,) = {(row.step, row.later) for row in waits if row.failures}
    assert failed == (step, True)
    assert {row.error for row in waits if row.failures} == {
        'The database\'s disk is full: could not extend file "base/1/2": No space left on device'
    }
    assert "No space left on device" in down(desk)["disk"]
    assert desk.scalar(f"SELECT count(*) FROM {table}") == 0, "half a chunk was written"

    desk.execute("DROP FUNCTION full_disk CASCADE")
    performed(desk, caplog)
    desk.work_until_over(run_id, hurry=True)
    assert down(desk) == {}
    assert desk.summary(run_id).succeeded == 25
    audit(desk, sandbox)


# -- the queue -------------------------------------------------------------------------------------------------------


@pytest.fixture
def full_queue(services: Services) -> Iterator[None]:
    """A Valkey that has no memory left."""
    with Redis.from_url(services.redis_url) as queue:
        most = queue.config_get("maxmemory")["maxmemory"]
        queue.config_set("maxmemory", 1)
        yield
        queue.config_set("maxmemory", most)


def test_a_queue_without_memory_is_told_and_costs_nothing_but_time(
    desk: DeskDriver, sandbox: SandboxProcess, full_queue: None
) -> None:
    trouble = jobs.queue_trouble()
    assert trouble is not None and "maxmemory" in trouble
    run_id = desk.start(documents(5))
    assert jobs.nudge() == 0
    desk.work_until_over(run_id, hurry=True)
    audit(desk, sandbox)


def test_an_outage_is_a_line_in_the_log_and_not_one_a_second(caplog: pytest.LogCaptureFixture) -> None:
    outage = jobs.Outage("The queue")
    for _ in range(50):
        outage.away("Connection refused.")
    outage.back()
    outage.back()
    outage.away("Connection refused.")
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "The queue cannot be used; work waits until it can. Connection refused.",
        "The queue can be used again after 0 seconds.",
        "The queue cannot be used; work waits until it can. Connection refused.",
    ]


# -- a worker that is to end -----------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The worker is asked to end in the first chunk of every step of every row."""
    from webapp.batches.steps import Lease

    progress = Lease.progress
    met = set()

    def progress_and_ask(self: Lease, tx: object) -> None:
        progress(self, tx)  # type: ignore[arg-type]
        if (self.step, self.target_id) not in met:
            met.add((self.step, self.target_id))
            leaving.ask()

    monkeypatch.setattr(Lease, "progress", progress_and_ask)
    yield
    leaving.stay()


def test_a_worker_that_is_to_end_stops_each_step_after_a_chunk_and_another_goes_on(
    desk: DeskDriver, sandbox: SandboxProcess, asked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("planning", "lines", "processing"):
        rows = "CHUNK_LINES" if name == "lines" else "CHUNK_ROWS"
        monkeypatch.setattr(f"webapp.batches.{name}.{rows}", 10)
    desk.change(batch_max_requests=15)
    sandbox.configure(overloaded_share=0.3)
    run_id = desk.start(documents(40))
    put_down = set()
    for _ in range(300):
        desk.hurry()
        for row in desk.rows("SELECT step, target_id FROM steps WHERE due_at <= now()"):
            jobs.perform(row.step, row.target_id)
            kept = desk.rows(
                "SELECT lease_until, starts, failures, due_at <= now() AS due FROM steps "
                "WHERE step = :step AND target_id = :target",
                step=row.step,
                target=row.target_id,
            )
            if leaving.asked():
                assert [tuple(one) for one in kept] == [(None, 0, 0, True)], row
                put_down.add(row.step)
            leaving.stay()
        if desk.status(run_id).over:
            break
    assert put_down == {"plan", "ingest", "process", "resubmit"}
    assert desk.status(run_id).state == "finished"
    audit(desk, sandbox)


def test_a_worker_that_is_to_end_holds_a_body_back_and_sends_it_another_time(
    desk: DeskDriver, sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    from webapp.batches import body

    page = body._page
    run_id = desk.start(documents(5))
    desk.perform_due()
    with monkeypatch.context() as patched:

        def page_and_ask(*arguments: object) -> object:
            leaving.ask()
            return page(*arguments)  # type: ignore[arg-type]

        patched.setattr(body, "_page", page_and_ask)
        desk.hurry()
        desk.perform_due()
    leaving.stay()
    assert desk.states() == ["planned"]
    post = desk.rows("SELECT outcome, armed_at, error FROM submissions")[0]
    assert (post.outcome, post.armed_at) == ("not_created", None) and "asked to end" in post.error
    assert desk.scalar("SELECT lease_until IS NULL AND due_at <= now() FROM steps WHERE step = 'submit'")
    assert len(sandbox.accepted()) == 0
    desk.work_until_over(run_id, hurry=True)
    audit(desk, sandbox)


def test_a_worker_that_is_to_end_begins_nothing(desk: DeskDriver) -> None:
    desk.start(documents(5))
    leaving.ask()
    desk.perform_due()
    leaving.stay()
    assert desk.scalar("SELECT epoch FROM steps WHERE step = 'plan'") == 0


def test_whoever_put_a_step_down_can_write_no_more(desk: DeskDriver) -> None:
    from webapp.batches import steps
    from webapp.errors import Fenced

    with db.transaction() as tx:
        steps.due(tx, StepName.POLL, 1)
    with db.transaction() as tx:
        lease = steps.take(tx, StepName.POLL, 1)
    assert lease
    with db.transaction() as tx:
        steps.put_down(tx, lease)
    with pytest.raises(Fenced), db.transaction() as tx:
        lease.hold(tx)


def test_leaving_is_one_of_our_errors() -> None:
    leaving.ask()
    with pytest.raises(Leaving, match="asked to end"):
        leaving.look()
    leaving.stay()
    leaving.look()
