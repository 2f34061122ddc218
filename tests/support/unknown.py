"""Batches whose POST is unknown, and batches of others, for tests that settle them."""

from __future__ import annotations

from support.desk import DeskDriver, documents
from support.sandbox import Sandbox


def unknown(desk: DeskDriver, sandbox: Sandbox, fault: str, count: int = 5) -> tuple[int, int]:
    """A run whose one batch's POST is unknown: (run id, batch id)."""
    sandbox.configure(create_faults=fault)
    run_id = desk.start(documents(count))
    desk.perform("plan", run_id)
    batch_id: int = desk.scalar("SELECT id FROM batches WHERE run_id = :id", id=run_id)
    desk.perform("submit", batch_id)
    assert desk.batch(batch_id).state == "submit_unknown"
    sandbox.configure(create_faults="")
    return run_id, batch_id


def stranger(sandbox: Sandbox, count: int = 5) -> str:
    """A batch that somebody else in the workspace makes; its id."""
    params = {"model": "claude-haiku-4-5", "max_tokens": 10, "messages": [{"role": "user", "content": "hello"}]}
    requests = [{"custom_id": f"theirs-{n}", "params": params} for n in range(count)]
    return str(sandbox.call("POST", "/v1/messages/batches", {"requests": requests})["id"])


def slow_stranger(sandbox: Sandbox, count: int = 5) -> str:
    """One that the API works on for an hour; its id."""
    sandbox.configure(delay=3600)
    made = stranger(sandbox, count)
    sandbox.configure(delay=0)
    return made


def settle(desk: DeskDriver, batch_id: int) -> str:
    """Look for the batch of an unknown POST once; the state it is in then."""
    desk.hurry()
    desk.perform("submit", batch_id)
    return str(desk.batch(batch_id).state)
