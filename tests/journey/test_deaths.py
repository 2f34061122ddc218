"""Processes die at any moment, and the queue loses everything: each record is still answered and paid exactly once."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psycopg
import pytest
from redis import Redis
from support.audit import audit
from support.desk import DeskDriver, documents
from support.installation import Command, Finished, Installation, until
from support.sandbox import SandboxProcess

from webapp import local

pytestmark = pytest.mark.journey

RECORDS = 400


def completed(done: Finished, installation: Installation, count: int) -> None:
    """Everything succeeded, and the output has one line for each record in order."""
    assert done.status == 0, done.err
    assert (done.summary["requests"], done.summary["succeeded"]) == (count, count)
    lines = installation.outputs()
    assert [line["key"] for line in lines] == [f"doc-{n}" for n in range(count)]
    assert {line["status"] for line in lines} == {"succeeded"}


def database_url(installation: Installation) -> str:
    services = local.running(installation.home)
    assert services is not None
    return services.database_url


@contextmanager
def locked(installation: Installation, table: str, mode: str) -> Iterator[None]:
    """Nobody gets past a table meanwhile: whoever wants to is caught in the middle of its step."""
    with psycopg.connect(database_url(installation)) as connection:
        connection.execute(f"LOCK TABLE {table} IN {mode} MODE")
        yield


def leased(desk: DeskDriver, step: str) -> bool:
    return bool(desk.scalar("SELECT count(*) FROM steps WHERE step = :step AND lease_until > now()", step=step))


def waits_for_the_lock(desk: DeskDriver, step: str) -> bool:
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    return leased(desk, step) and bool(desk.scalar(waiting))


def kill_worker_for_good(installation: Installation, up: Command, desk: DeskDriver) -> None:
    """kill -9; the time that its leases would still last is let pass at once."""
    installation.kill_child(up, "worker")
    desk.lapse()


@pytest.mark.parametrize(
    ("step", "table", "mode"),
    [
        ("plan", "requests", "SHARE ROW EXCLUSIVE"),
        ("submit", "submissions", "SHARE ROW EXCLUSIVE"),
        ("ingest", "results", "SHARE ROW EXCLUSIVE"),
        ("process", "outputs", "SHARE ROW EXCLUSIVE"),
    ],
)
def test_a_worker_killed_in_the_middle_of_a_step_is_replaced(
    shared: Installation, upped: Command, desk: DeskDriver, step: str, table: str, mode: str
) -> None:
    source = shared.write("docs.jsonl", documents(RECORDS))
    with locked(shared, table, mode):
        run = shared.start(*shared.classifying(source))
        until(lambda: waits_for_the_lock(desk, step), f"{step} is caught")
        shared.kill_child(upped, "worker")
        assert leased(desk, step), "it was caught and killed in the middle"
    desk.lapse()
    completed(run.ended(), shared, RECORDS)


def test_a_worker_killed_while_it_sends_a_body_sends_it_again(
    shared: Installation, shared_api: SandboxProcess, upped: Command, desk: DeskDriver
) -> None:
    accepted = len(shared_api.accepted())
    source = shared.write("docs.jsonl", documents(RECORDS))
    with ExitStack() as body:
        with locked(shared, "submissions", "SHARE ROW EXCLUSIVE"):
            run = shared.start(*shared.classifying(source))
            until(lambda: waits_for_the_lock(desk, "submit"), "everything is planned")
            body.enter_context(locked(shared, "item_params", "ACCESS EXCLUSIVE"))
        posts = "SELECT count(*) FROM submissions WHERE outcome IS NULL"
        until(lambda: desk.scalar(posts) and waits_for_the_lock(desk, "submit"), "a POST is begun")
        shared.kill_child(upped, "worker")
    desk.lapse()
    completed(run.ended(), shared, RECORDS)
    assert len(shared_api.accepted()) == accepted + RECORDS
    assert desk.scalar("SELECT count(*) FROM submissions WHERE armed_at IS NULL AND outcome = 'not_created'")


def test_a_worker_killed_while_the_api_answers_its_post_finds_the_batch_again(
    shared: Installation, shared_api: SandboxProcess, upped: Command, desk: DeskDriver
) -> None:
    accepted = len(shared_api.accepted())
    shared_api.configure(create_faults="timeout_after:60")
    run = shared.start(*shared.classifying(shared.write("docs.jsonl", documents(RECORDS))))
    until(lambda: len(shared_api.accepted()) > accepted, "the API has the batch and stays silent")
    kill_worker_for_good(shared, upped, desk)

    completed(run.ended(), shared, RECORDS)
    assert desk.scalar("SELECT count(*) FROM events WHERE reason LIKE 'Found in the API%'") == 1


def test_workers_clocks_and_dashboards_killed_at_random_change_nothing(
    shared: Installation, upped: Command, desk: DeskDriver
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    victims = ["worker", "clock", "web", "worker", "clock"]
    chance.shuffle(victims)
    run = shared.start(*shared.classifying(shared.write("docs.jsonl", documents(2 * RECORDS))))
    for victim in victims:
        time.sleep(chance.uniform(0.1, 1.5))
        shared.kill_child(upped, victim)
    completed(run.ended(), shared, 2 * RECORDS)


def test_a_queue_that_forgets_everything_costs_seconds(shared: Installation, upped: Command, desk: DeskDriver) -> None:
    services = local.running(shared.home)
    assert services is not None
    run = shared.start(*shared.classifying(shared.write("docs.jsonl", documents(RECORDS))))
    with Redis.from_url(services.redis_url) as queue:
        while run.process.poll() is None:
            queue.flushall()
            time.sleep(0.4)
    completed(run.ended(), shared, RECORDS)


def test_a_database_killed_in_the_middle_is_started_again_and_the_run_goes_on(
    shared: Installation, upped: Command, desk: DeskDriver
) -> None:
    from webapp.db import db

    run = shared.start(*shared.classifying(shared.write("docs.jsonl", documents(RECORDS))))
    run.says("started.")
    shared.kill_child(upped, "bin/postgres")
    db.engine.dispose()
    completed(run.ended(), shared, RECORDS)


def test_a_queue_killed_in_the_middle_is_started_again_and_the_run_goes_on(
    shared: Installation, upped: Command, desk: DeskDriver
) -> None:
    run = shared.start(*shared.classifying(shared.write("docs.jsonl", documents(RECORDS))))
    run.says("started.")
    shared.kill_child(upped, "valkey")
    completed(run.ended(), shared, RECORDS)


def test_a_waiting_command_takes_over_when_everything_else_is_killed(
    installation: Installation, api: SandboxProcess
) -> None:
    """I20: what was saved could not be loaded. Here the next process takes everything up from the real database."""
    source = installation.write("docs.jsonl", documents(RECORDS))
    with installation.up_until_killed() as up:
        run = installation.start(*installation.classifying(source))
        run.says("started.")
        up.signal(signal.SIGKILL)
        completed(run.ended(), installation, RECORDS)
    assert not installation.left_running()

    # The other way round: the command dies that had started everything, and the next finds what it left.
    api.configure(delay=600)
    run = installation.start(*installation.classifying(source))
    until(lambda: len(api.accepted()) > RECORDS, "the second run is under way")
    run.kill()
    until(lambda: not installation.left_running(), "all that it had started has ended")
    api.configure(delay=0.3)  # for what was not sent yet
    api.advance(600)
    again = installation.run("resubmit", "2", "--json", "--out", installation.folder / "out.jsonl")
    completed(again, installation, RECORDS)
    with installation.desk() as desk:
        audit(desk, api)
