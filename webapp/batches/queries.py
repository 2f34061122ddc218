"""What the screens and the command line ask: counts, summaries, the rows of an export. Reads only.
Counts of many rows come from tallies; the summary of one run comes from its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.batches.desk import ceiling
from webapp.batches.states import OPEN_BATCH_STATES, RunState
from webapp.errors import NotFound
from webapp.money import ledger
from webapp.records.exporting import OutputRow
from webapp.runs import selections

Reading = Callable[[], AbstractContextManager[Connection]]  # opens a short transaction to read in

EXPORT_PAGE = 1000
EXPORT_BYTES = 8_000_000  # of answers held at once; a longer one comes alone


@dataclass(frozen=True, slots=True)
class Counts:
    """How many requests (or items) stand where. `invalid` ones are among `succeeded`; so are those `waiting`.

    Items that are `retrying` wait for their next attempt, which comes by rule: they have not failed yet, and are not
    among the errored, expired or missing.
    """

    pending: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0
    missing: int = 0
    stopped: int = 0
    ok: int = 0
    invalid: int = 0
    retrying: int = 0

    @property
    def total(self) -> int:
        ended = self.errored + self.canceled + self.expired + self.missing + self.stopped
        return self.pending + self.succeeded + ended + self.retrying

    @property
    def failed(self) -> int:
        """Every failure, answers that are no use included; not what waits for its next attempt."""
        return self.errored + self.canceled + self.expired + self.missing + self.stopped + self.invalid


@dataclass(frozen=True, slots=True)
class Summary:
    """A run in one object, as `--json` prints it: each subject counts once, by its latest attempt."""

    run: int
    requests: int
    succeeded: int
    errored: int
    canceled: int
    expired: int
    missing: int
    stopped: int
    invalid: int
    batches: int
    cost_usd: float | None
    sync_cost_usd: float | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def failures(self) -> int:
        return self.requests - self.succeeded


NAMES = ("pending", "succeeded", "errored", "canceled", "expired", "missing", "stopped", "ok", "invalid")
SUMS = ", ".join(f"sum(t.{name}) AS {name}" for name in NAMES)
RETRIED = ("errored", "expired", "missing")  # what an item of class retry is


def run_counts(tx: Connection, run_ids: Sequence[int]) -> dict[int, Counts]:
    """Counts of items by run, from tallies; runs without any are left out."""
    again = ", ".join(
        f"GREATEST(coalesce(sum(t.{name}) FILTER (WHERE t.retry_attempt < :most AND r.state IN ('running', 'paused') "
        f"AND r.cancel_wanted_at IS NULL), 0), 0) AS {name}_again"
        for name in RETRIED
    )
    found = db.rows(
        tx,
        f"SELECT t.run_id AS id, {SUMS}, {again} FROM tallies t JOIN runs r ON r.id = t.run_id "  # noqa: S608
        "WHERE t.run_id = ANY(:ids) AND t.scope = 'items' GROUP BY t.run_id",
        ids=list(run_ids),
        most=ceiling(),
    )
    paid = _paid_and_missing(tx, [line.id for line in found if line.missing_again])
    counts = {}
    for line in found:
        values = {name: int(getattr(line, name)) for name in NAMES}
        for name in RETRIED:
            again_of_it = int(getattr(line, f"{name}_again")) - (paid.get(line.id, 0) if name == "missing" else 0)
            values[name] -= again_of_it
            values["retrying"] = values.get("retrying", 0) + again_of_it
        counts[line.id] = Counts(**values)
    return counts


def _paid_and_missing(tx: Connection, run_ids: Sequence[int]) -> dict[int, int]:
    """By run, how many items of class retry are not sent again by rule, since the API counts their answer as given."""
    if not run_ids:
        return {}
    found = db.rows(
        tx,
        "SELECT b.run_id, count(*) FROM batches b JOIN requests r ON r.batch_id = b.id AND r.state = 'missing' "
        "JOIN items i ON i.id = r.item_id AND i.attempts = r.attempt AND i.failure_class = 'retry' "
        "WHERE b.run_id = ANY(:ids) AND b.owed > 0 AND i.attempts < :most GROUP BY 1",
        ids=list(run_ids),
        most=ceiling(),
    )
    return {run_id: int(count) for run_id, count in found}


def batch_counts(tx: Connection, batch_ids: Sequence[int]) -> dict[int, Counts]:
    """Counts of requests by batch, from tallies; batches without any are left out."""
    found = db.rows(
        tx,
        f"SELECT t.batch_id AS id, {SUMS} FROM tallies t "  # noqa: S608 - names come from our own code
        "WHERE t.batch_id = ANY(:ids) AND t.scope = 'requests' GROUP BY t.batch_id",
        ids=list(batch_ids),
    )
    return {line.id: Counts(**{name: int(getattr(line, name)) for name in NAMES}) for line in found}


def summary(tx: Connection, run_id: int) -> Summary:
    """The summary of one run, counted over its rows.

    :raises NotFound: there is no such run.
    """
    run = db.row(
        tx,
        "SELECT subjects, state, (SELECT count(*) FROM batches WHERE run_id = :id AND state <> 'discarded') AS batches "
        "FROM runs WHERE id = :id",
        id=run_id,
    )
    if run is None:
        raise NotFound(f"There is no run {run_id}.")
    states = {
        line.state: line.n
        for line in db.rows(
            tx,
            "SELECT CASE WHEN output_state = 'invalid' THEN 'invalid' ELSE state END AS state, count(*) AS n "
            "FROM items WHERE run_id = :id GROUP BY 1",
            id=run_id,
        )
    }
    if run.state == RunState.CANCELLED:  # before every subject had its item
        states["stopped"] = states.get("stopped", 0) + run.subjects - sum(states.values())
    totals = ledger.run_totals(tx, run_id)
    return Summary(
        run=run_id,
        requests=run.subjects,
        batches=run.batches,
        cost_usd=_number(totals.cost_usd),
        sync_cost_usd=_number(totals.sync_cost_usd),
        **{
            name: states.get(name, 0)
            for name in ("succeeded", "errored", "canceled", "expired", "missing", "stopped", "invalid")
        },
    )


def _number(amount: Decimal | None) -> float | None:
    """For JSON, whose numbers are read as doubles anyway; the ledger keeps the exact figure."""
    return None if amount is None else float(amount)


@dataclass(frozen=True, slots=True)
class RunStatus:
    """Where a run stands, for whoever waits for it."""

    id: int
    task: str
    state: RunState
    reason: str | None
    subjects: int
    counts: Counts
    held: tuple[str, ...]  # reasons of batches that wait for a person
    others_open: int  # batches on their way that do not
    retrying_in: float | None  # seconds until failures go again by themselves

    @property
    def over(self) -> bool:
        return self.state in (RunState.FINISHED, RunState.CANCELLED)


def run_status(tx: Connection, run_id: int) -> RunStatus:
    """Where one run stands.

    :raises NotFound: there is no such run.
    """
    run = db.row(
        tx,
        "SELECT r.id, r.task, r.state, r.reason, r.subjects, (SELECT extract(epoch FROM s.due_at - now()) FROM steps s "
        "WHERE s.step = 'resubmit' AND s.target_id = r.id) AS retrying_in FROM runs r WHERE r.id = :id",
        id=run_id,
    )
    if run is None:
        raise NotFound(f"There is no run {run_id}.")
    under_way = db.rows(
        tx,
        "SELECT held, reason FROM batches WHERE run_id = :id AND state = ANY(:open) ORDER BY id",
        id=run_id,
        open=[state.value for state in OPEN_BATCH_STATES],
    )
    held = [batch.reason for batch in under_way if batch.held]
    return RunStatus(
        id=run.id,
        task=run.task,
        state=RunState(run.state),
        reason=run.reason,
        subjects=run.subjects,
        counts=run_counts(tx, [run_id]).get(run_id, Counts()),
        held=tuple(held),
        others_open=len(under_way) - len(held),
        retrying_in=None if run.retrying_in is None else max(0.0, float(run.retrying_in)),
    )


@dataclass(frozen=True, slots=True)
class Answers:
    """How many requests came to an end within an hour: those that succeeded, and those that did not."""

    hour: datetime
    succeeded: int
    failed: int


def answers_by_hour(tx: Connection, since: datetime) -> list[Answers]:
    """What came in from a time on, by hour in UTC; hours in which nothing did are left out. From tallies."""
    found = db.rows(
        tx,
        "SELECT date_trunc('hour', at, 'UTC') AS hour, sum(succeeded) AS succeeded, "
        "sum(errored + canceled + expired + missing) AS failed FROM tallies "
        "WHERE scope = 'requests' AND at >= :since GROUP BY 1 ORDER BY 1",
        since=since,
    )
    # A late line takes back what was counted as missing: an hour may hold less than nothing.
    return [Answers(line.hour, max(0, int(line.succeeded)), max(0, int(line.failed))) for line in found]


@dataclass(frozen=True, slots=True)
class Work:
    """What the workers have before them: steps that are due and nobody is at, and for how long the first has been."""

    waiting: int
    oldest: datetime | None
    under_way: int


def work(tx: Connection) -> Work:
    """What is due and what is being done, from the steps themselves; the queue is not asked."""
    found = db.row(
        tx,
        "SELECT count(*) FILTER (WHERE due_at <= now() AND lease_until IS NULL) AS waiting, "
        "min(due_at) FILTER (WHERE due_at <= now() AND lease_until IS NULL) AS oldest, "
        "count(*) FILTER (WHERE lease_until >= now()) AS under_way FROM steps",
    )
    return Work(found.waiting, found.oldest, found.under_way)


SEEN_WITHIN = 60  # seconds; heartbeats come every ten


def processes_up(tx: Connection) -> dict[str, int]:
    """How many processes of each role, `worker` and `clock`, have been seen lately."""
    found = db.rows(
        tx,
        "SELECT role, count(*) FROM processes WHERE seen_at > now() - make_interval(secs => :within) GROUP BY 1",
        within=SEEN_WITHIN,
    )
    return {"worker": 0, "clock": 0} | dict(tuple(line) for line in found)


def recent_runs(tx: Connection, limit: int = 50) -> list[int]:
    """Ids of the latest runs, newest first."""
    return [run_id for (run_id,) in db.rows(tx, "SELECT id FROM runs ORDER BY id DESC LIMIT :limit", limit=limit)]


def outputs(tx: Connection, run_id: int) -> Iterator[OutputRow]:
    """One row per subject of a run, in input order, each exactly once; memory does not grow with them.

    Best in a transaction that is opened `by_key`.
    """
    return outputs_in_parts(lambda: nullcontext(tx), run_id)


def outputs_in_parts(reading: Reading, run_id: int) -> Iterator[OutputRow]:
    """`outputs`, each part of them read in a transaction of its own; none is open while they are taken."""
    with reading() as tx:
        run = db.row(
            tx,
            f"SELECT r.dataset_id, r.revision, r.state, {selections.SELECTED} AS selected FROM runs r WHERE r.id = :id",  # noqa: S608 - a constant
            id=run_id,
        )
    after = -1
    while run is not None:
        with reading() as tx:
            page = _output_page(tx, run_id, run, after)
        for part in by_bytes(page):
            with reading() as tx:
                rows = list(_output_rows(tx, part, "stopped" if run.state == RunState.CANCELLED else "pending"))
            yield from rows
        if len(page) < EXPORT_PAGE:
            return
        after = page[-1].position


def _output_page(tx: Connection, run_id: int, run: Any, after: int) -> Sequence[Any]:
    subjects, position = selections.after(selected=run.selected)
    return db.rows(
        tx,
        f"""
            WITH page AS MATERIALIZED (
                SELECT {position} AS position, s.key {subjects} ORDER BY {position} LIMIT :page
            )
            SELECT page.position, page.key, i.state, i.output_state, i.error, coalesce(i.attempts, 0) AS attempts,
                   coalesce(o.custom_id, r.custom_id) AS custom_id, o.request_id AS output_id, o.size
            FROM page
            LEFT JOIN items i ON i.run_id = :run AND i.position = page.position
            LEFT JOIN requests r ON r.item_id = i.id AND r.attempt = i.attempts
            LEFT JOIN LATERAL (
                SELECT o.request_id, first.custom_id, octet_length(o.value::text) AS size
                FROM requests first JOIN outputs o ON o.request_id = first.id
                WHERE first.item_id = i.id AND o.state = 'ok' ORDER BY first.attempt LIMIT 1
            ) AS o ON i.output_state = 'ok'
            ORDER BY page.position
            """,  # noqa: S608 - constants
        dataset=run.dataset_id,
        revision=run.revision,
        run=run_id,
        after=after,
        page=EXPORT_PAGE,
    )


def by_bytes(page: Sequence[Any]) -> Iterator[list[Any]]:
    """A page in parts whose answers together are no longer than `EXPORT_BYTES`."""
    part: list[Any] = []
    size = 0
    for line in page:
        size += line.size or 0
        if part and size > EXPORT_BYTES:
            yield part
            part, size = [], line.size or 0
        part.append(line)
    if part:
        yield part


def _output_rows(tx: Connection, part: Sequence[Any], unplanned: str) -> Iterator[OutputRow]:
    """The rows with their answers; `unplanned` is the status of a subject that has no item."""
    ids = [line.output_id for line in part if line.output_id is not None]
    found = db.rows(
        tx, "SELECT request_id, value::text FROM outputs WHERE request_id = ANY(CAST(:ids AS bigint[]))", ids=ids
    )
    values: dict[int, str | None] = dict(found)
    for line in part:
        status = "invalid" if line.output_state == "invalid" else line.state or unplanned
        yield OutputRow(line.key, status, values.get(line.output_id), line.error, line.custom_id, line.attempts)
