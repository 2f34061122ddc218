"""Waits for a run with a progress bar, and ends a command the way the contract says: outputs, one JSON object, status.
`run` and `resubmit` use it.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from types import FrameType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy.exc import DBAPIError

from webapp import db, jobs
from webapp.batches import queries
from webapp.batches.queries import Counts, RunStatus, Summary
from webapp.batches.states import RunState
from webapp.cli.app import FAILURES, OK, STOPPED_WAITING, tell
from webapp.cli.delivering import see_delivered
from webapp.cli.environment import connection_lost, owner_left
from webapp.records.escapes import one_line
from webapp.records.exporting import write_outputs
from webapp.runs import pilots

T = TypeVar("T")

LOOK_SECONDS = 0.2
UNMANNED_SECONDS = 10.0  # of waiting before it is told that nobody works
QUIET_SECONDS = 30.0  # between lines of progress where no terminal shows a bar
DATABASE_PATIENCE = 300.0
SILENT_SECONDS = 5.0  # without the database before a person is told
INTERRUPTED = "interrupted."
AWAY = "the database does not answer."


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM while waiting."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How waiting for a run ended: `stopped` says why it did before the run was over."""

    summary: Summary
    counts: Counts
    stopped: str | None

    @property
    def status(self) -> int:
        if self.stopped is not None:
            return STOPPED_WAITING
        return FAILURES if self.summary.failures else OK


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM ends the command like Ctrl-C: in order, with its words."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def deadline_of(timeout: float | None) -> float | None:
    """When waiting ends (monotonic seconds), for a timeout in seconds from now."""
    return None if timeout is None else time.monotonic() + timeout


def see_out(run_id: int, *, until: float | None, out: Path | None, as_json: bool) -> int:
    """Wait for a run and its deliveries, and finish as the contract says; the exit status. May be repeated."""
    try:
        ending = wait_for(run_id, deadline=until)
        status = finish(ending, out=out, as_json=as_json)
        if ending.stopped is None and not patiently(lambda: see_delivered(run_id, deadline=until)):
            return FAILURES
        return status
    except KeyboardInterrupt:
        tell(come_back(run_id, INTERRUPTED))
    except DBAPIError as error:
        if not connection_lost(error) or owner_left():
            raise
        tell(come_back(run_id, AWAY))
    return STOPPED_WAITING


def patiently(read: Callable[[], T], *, deadline: float | None = None) -> T:
    """Do what may be repeated; a database that restarts is waited for, one whose owner has left is not.

    :param deadline: until when at most (monotonic seconds).
    """
    begun, told = time.monotonic(), False
    end = min(begun + DATABASE_PATIENCE, deadline or inf)
    while True:
        try:
            return read()
        except DBAPIError as error:
            if not connection_lost(error) or owner_left() or time.monotonic() > end:
                raise
        if not told and time.monotonic() - begun > SILENT_SECONDS:
            told = True
            tell("The database does not answer; it is waited for.")
        time.sleep(LOOK_SECONDS)


def present(run_id: int) -> Ending:
    """How a run stands without waiting for it."""
    with db.transaction() as tx:
        status = queries.run_status(tx, run_id)
        stopped = None if status.over else _stopped(status) or "it goes on."
        return Ending(queries.summary(tx, run_id), status.counts, stopped)


def wait_for(run_id: int, *, deadline: float | None = None) -> Ending:
    """Wait until a run is over, paused or held; Ctrl-C and the deadline leave it as it is."""
    try:
        patiently(jobs.nudge)
        stopped = _watch(run_id, deadline)
    except KeyboardInterrupt:
        stopped = INTERRUPTED
    return patiently(lambda: _ending(run_id, stopped))


def _ending(run_id: int, stopped: str | None) -> Ending:
    with db.transaction() as tx:
        return Ending(queries.summary(tx, run_id), queries.run_status(tx, run_id).counts, stopped)


def _watch(run_id: int, deadline: float | None) -> str | None:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    told = began = time.monotonic()
    manned = False
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        line = bar.add_task("planning", total=None)
        while True:
            status = patiently(lambda: _status(run_id), deadline=deadline)
            counts = status.counts
            done = status.subjects - counts.pending - counts.retrying if counts.total else 0
            bar.update(line, description=_phase(status), completed=done, total=status.subjects)
            if status.over:
                return None
            stopped = _stopped(status)
            if stopped or (deadline is not None and time.monotonic() >= deadline):
                return stopped or "the time is over."
            if not manned and time.monotonic() - began >= UNMANNED_SECONDS:
                manned = True
                unmanned = patiently(nobody_works, deadline=deadline)
                if unmanned:
                    tell(unmanned)
            if not console.is_terminal and time.monotonic() - told >= QUIET_SECONDS:
                told = time.monotonic()
                tell(f"Run {run_id}: {_phase(status)}, {done:,} of {status.subjects:,}.")
            time.sleep(LOOK_SECONDS)


def _status(run_id: int) -> RunStatus:
    with db.transaction() as tx:
        return queries.run_status(tx, run_id)


def nobody_works() -> str | None:
    """What to say when no worker or no clock is up: the run would be waited for in vain."""
    with db.transaction() as tx:
        missing = [role for role, count in queries.processes_up(tx).items() if not count]
    if not missing:
        return None
    start = {"worker": "`python worker.py work`", "clock": "`python worker.py clock`"}
    return (
        f"No {' and no '.join(missing)} has been seen for a minute, so that the run does not get on: start "
        f"{' and '.join(start[role] for role in missing)}, or `batchdesk up`."
    )


def _phase(status: RunStatus) -> str:
    if status.state == RunState.PLANNING:
        return "planning"
    told = [f"{status.counts.failed:,} failed"] if status.counts.failed else []
    if status.counts.retrying:
        when = f" in {status.retrying_in:.0f} s" if status.retrying_in and not status.counts.pending else ""
        told.append(f"{status.counts.retrying:,} go again{when}")
    return ", ".join(told) or "running"


def _stopped(status: RunStatus) -> str | None:
    if status.state == RunState.PAUSED:
        return f"the run is paused: {status.reason}"
    if status.held and status.others_open == 0:
        return f"the run is held: {status.held[0]}"
    return None


def finish(ending: Ending, *, out: Path | None, as_json: bool) -> int:
    """Write the outputs of a run that is over, say how it went, print the object; the exit status."""
    summary = ending.summary
    if ending.stopped is None and out is not None:
        count = patiently(lambda: _write(summary.run, out))
        tell(f"{count:,} outputs written to {out}.")
    tell(describe(summary, ending.counts))
    if ending.stopped is not None:
        for line in patiently(lambda: _piloted(summary.run)):
            tell(line)
        tell(come_back(summary.run, ending.stopped))
    if as_json:
        tell(json.dumps(summary.as_json()), err=False)
    return ending.status


def _piloted(run_id: int) -> list[str]:
    """The first outputs of a pilot that a person is to look at."""
    with db.transaction() as tx:
        pilot = pilots.of_run(tx, run_id)
        if pilot is None or not pilot.through or pilot.released:
            return []
        return [
            f"  {one_line(one.key, 40)}: {one_line(one.value or one.error or one.state, 160)}"
            for one in pilots.first(tx, run_id)
        ]


def _write(run_id: int, out: Path) -> int:
    with db.transaction(by_key=True) as tx:
        return write_outputs(queries.outputs(tx, run_id), out)


def describe(summary: Summary, counts: Counts) -> str:
    """A run's figures in one or two sentences; what waits for its next attempt is told apart from what has failed."""
    stand = {name: getattr(counts, name) for name in ("errored", "canceled", "expired", "missing")}
    stand |= {"stopped": summary.stopped, "invalid": summary.invalid}
    stand["waiting for their next attempt"] = counts.retrying
    told = [f"{count:,} {name}" for name, count in stand.items() if count]
    parts = [f"Run {summary.run}: {summary.succeeded:,} of {summary.requests:,} succeeded", *told]
    return f"{', '.join(parts)}. Batches: {summary.batches:,}. {_cost(summary)}"


def _cost(summary: Summary) -> str:
    if summary.cost_usd is None:
        return "Cost: unpriced (a model is not in the price table)."
    synchronous = "" if summary.sync_cost_usd is None else f", against {_usd(summary.sync_cost_usd)} synchronously"
    return f"Cost: {_usd(summary.cost_usd)}{synchronous}."


def _usd(amount: float) -> str:
    """Four decimals, more for what would be nothing with four."""
    return f"{amount:,.4f} USD" if amount == 0 or amount >= 0.01 else f"{amount:.6f} USD"


def come_back(run_id: int, why: str) -> str:
    """What to say when a command stops waiting: the run stays, and how to see it again."""
    return (
        f"Stopped waiting: {why}\n"
        f"Run {run_id} stays as it is: nothing is cancelled. `batchdesk status {run_id}` shows where it is, "
        f"`batchdesk resume {run_id}` ends a pause, "
        f"`batchdesk resubmit {run_id}` does and waits for it again, `batchdesk up` works on, "
        f"`batchdesk export {run_id} --out FILE` writes what is there, `batchdesk cancel {run_id}` ends it."
    )
