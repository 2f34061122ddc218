"""`doctor` names what is down and how to mend it, and looks at the rest all the same."""

from __future__ import annotations

import pytest
from redis import Redis
from support.command_line import CommandLine
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox

from webapp.local import Services

AWAY = "redis://127.0.0.1:1/0"


def test_a_database_that_is_away_hides_nothing_else(line: CommandLine, database_url: str) -> None:
    gone = database_url.replace("/test_", "/no_such_")
    done = line("doctor", DATABASE_URL=gone, REDIS_URL=AWAY)
    assert done.status == 1
    for words in ("The database does not answer:", "Check DATABASE_URL and the server.", "The queue takes nothing:"):
        assert words in done.out
    assert "ok   API:" in done.out


def test_a_queue_without_memory_is_told_with_the_remedy(line: CommandLine, services: Services) -> None:
    with Redis.from_url(services.redis_url) as queue:
        queue.config_set("maxmemory", 1)
        try:
            done = line("doctor")
        finally:
            queue.config_set("maxmemory", 0)
    assert "BAD  The queue takes nothing: command not allowed when used memory > 'maxmemory'." in done.out
    assert "its memory. No data is lost" in done.out
    assert "ok   Queue: answers" in line("doctor").out


def test_an_api_that_workers_do_not_reach_is_told(line: CommandLine, desk: DeskDriver, sandbox: Sandbox) -> None:
    desk.start(documents(1))
    desk.perform_until("in_progress")
    sandbox.configure(retrieve_faults="529*3")
    for _ in range(3):
        desk.hurry()
        desk.perform_due()
    done = line("doctor")
    assert "BAD  Calls of the API failed 3 times in a row, since " in done.out and "UTC: Overloaded" in done.out
    assert "It is asked again by itself." in done.out


def test_a_disk_without_room_is_told_with_the_remedy(line: CommandLine, desk: DeskDriver) -> None:
    desk.execute("UPDATE outages SET words = 'No space left on device', times = 1, seen_at = now() WHERE part = 'disk'")
    done = line("doctor")
    assert done.status == 1
    assert "BAD  The database's disk is full, since" in done.out and "Make room where PostgreSQL keeps" in done.out


@pytest.mark.parametrize("command", ["status", "export"])
def test_a_command_that_finds_the_database_away_says_so(line: CommandLine, database_url: str, command: str) -> None:
    gone = database_url.replace("/test_", "/no_such_")
    arguments = ("export", "1", "--out", "out.jsonl") if command == "export" else ("status",)
    done = line(*arguments, DATABASE_URL=gone)
    assert done.status == 2 and "The database does not answer" in done.err and "doctor` says more" in done.err
