"""The books of an installation against themselves and against the sandbox's: what must hold after any run.

Tests call `audit` at their end; it names each line that does not hold, with what is wrong. `broken` tells the same
without an error. Each line is a function whose name says what holds; it yields a sentence for whatever does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from support.desk import DeskDriver
from support.sandbox import Sandbox

from webapp.batches.states import BATCH_MOVES, RUN_MOVES, UPLOAD_MOVES, BatchState, RunState, UploadState

#: The ledger's column for each class of tokens that the sandbox bills.
TOKENS = {
    "input_tokens": "input_tokens",
    "write_5m_tokens": "cache_creation_5m_input_tokens",
    "write_1h_tokens": "cache_creation_1h_input_tokens",
    "read_tokens": "cache_read_input_tokens",
    "output_tokens": "output_tokens",
}
OUTCOMES = ("pending", "succeeded", "errored", "canceled", "expired", "missing", "stopped")
SHOWN = 3  # rows that a sentence names
TABLE = "chaos_delivered"  # where tests that kill let outputs go, in the same database


@dataclass
class Books:
    """An installation, the API it sends to, and whose batches at that API are not its own."""

    desk: DeskDriver
    sandbox: Sandbox
    strangers: Collection[str] = field(default=())

    @cached_property
    def accepted(self) -> list[tuple[str, str]]:
        """(batch, custom_id) of each request of ours that the API accepted."""
        lines = self.sandbox.accepted()
        return [(one["batch_id"], one["custom_id"]) for one in lines if one["batch_id"] not in self.strangers]

    def none(self, what: str, statement: str, **parameters: Any) -> Iterator[str]:
        """A sentence if a query finds rows."""
        found = self.desk.rows(statement, **parameters)
        if found:
            yield f"{len(found)} {what}, such as {', '.join(str(tuple(row)) for row in found[:SHOWN])}"


Line = Callable[[Books], Iterator[str]]


@dataclass(frozen=True)
class Broken:
    """A line of the audit that does not hold, by its name, and how."""

    line: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.line.replace('_', ' ')}: " + "; ".join(self.words)


def audit(desk: DeskDriver, sandbox: Sandbox, *, over: bool = True, strangers: Collection[str] = ()) -> None:
    """Check every account of every run.

    :param over: False where batches are still under way: nothing is asked of what is not there yet.
    :param strangers: ids of batches at the API that are not of this installation.
    """
    found = broken(desk, sandbox, over=over, strangers=strangers)
    assert not found, "\n".join(str(one) for one in found)


def broken(desk: DeskDriver, sandbox: Sandbox, *, over: bool = True, strangers: Collection[str] = ()) -> list[Broken]:
    """The lines that do not hold. Arguments as for `audit`."""
    books = Books(desk, sandbox, strangers)
    found = []
    for line in (*ALWAYS, *AT_THE_END) if over else ALWAYS:
        words = tuple(line(books))
        if words:
            found.append(Broken(line.__name__, words))
    return found


def every_request_is_accounted_for(books: Books) -> Iterator[str]:
    """Nothing pends, each item's latest attempt stands as the item does, each batch holds what it should."""
    yield from books.none(
        "items pend", "SELECT id, state, output_state FROM items WHERE state = 'pending' OR output_state = 'waiting'"
    )
    yield from books.none(
        "requests pend or are in an open batch",
        "SELECT r.id, r.state, b.state FROM requests r JOIN batches b ON b.id = r.batch_id "
        "WHERE r.state = 'pending' OR b.state NOT IN ('done', 'failed', 'discarded')",
    )
    yield from books.none(
        # Or as an earlier one, whose line came late.
        "items do not stand as their latest request",
        "SELECT i.id, i.state, r.state FROM items i JOIN requests r ON r.item_id = i.id AND r.attempt = i.attempts "
        "WHERE r.state <> i.state AND NOT (i.state = 'succeeded' AND EXISTS (SELECT 1 FROM requests late "
        "WHERE late.item_id = i.id AND late.state = 'succeeded'))",
    )
    yield from books.none(
        "items count other attempts than they have requests",
        "SELECT i.id, i.attempts FROM items i "
        "WHERE i.attempts <> (SELECT count(*) FROM requests r WHERE r.item_id = i.id)",
    )
    yield from books.none(
        "batches differ from their total",
        "SELECT id, total FROM batches b WHERE state <> 'discarded' "
        "AND total <> (SELECT count(*) FROM requests r WHERE r.batch_id = b.id)",
    )
    yield from books.none(
        "batches do not say between which ids their requests are",
        "SELECT b.id, b.first_request_id, b.last_request_id, held.first, held.last FROM batches b JOIN ("
        "SELECT batch_id, min(id) AS first, max(id) AS last FROM requests GROUP BY batch_id) held "
        "ON held.batch_id = b.id "
        "WHERE (b.first_request_id, b.last_request_id) IS DISTINCT FROM (held.first, held.last)",
    )
    yield from books.none(
        "POSTs are not settled", "SELECT id, outcome FROM submissions WHERE outcome IS NULL OR outcome = 'unknown'"
    )
    yield from books.none(
        # One that was cancelled may have been before each of its subjects had its item.
        "runs that are finished lack items",
        "SELECT r.id, r.subjects FROM runs r WHERE r.state = 'finished' "
        "AND r.subjects <> (SELECT count(*) FROM items i WHERE i.run_id = r.id)",
    )


def every_result_is_stored_once(books: Books) -> Iterator[str]:
    """A result for every answered request, of its kind, and none for any other."""
    yield from books.none(
        "results are not of their request's kind",
        "SELECT r.id, r.state, res.kind FROM results res LEFT JOIN requests r ON r.id = res.request_id "
        "WHERE r.state IS DISTINCT FROM res.kind",
    )
    yield from books.none(
        "answered requests have no result",
        "SELECT r.id, r.state FROM requests r JOIN batches b ON b.id = r.batch_id WHERE b.state <> 'failed' "
        "AND r.state IN ('succeeded', 'errored', 'canceled', 'expired') "
        "AND NOT EXISTS (SELECT 1 FROM results res WHERE res.request_id = r.id)",
    )


def every_output_is_applied_once(books: Books) -> Iterator[str]:
    """An output for every succeeded request; an item with one of use is ok, any other stands as its last one does."""
    yield from books.none(
        "succeeded requests and outputs have no counterpart",
        "SELECT r.id, o.request_id FROM requests r FULL JOIN outputs o ON o.request_id = r.id "
        "WHERE (r.state = 'succeeded') IS DISTINCT FROM (o.request_id IS NOT NULL)",
    )
    of_use = "(SELECT r.item_id FROM requests r JOIN outputs o ON o.request_id = r.id WHERE o.state = 'ok')"
    yield from books.none(
        "items are ok without an output of use, or not ok with one",
        f"SELECT id, output_state FROM items WHERE (id IN {of_use}) <> (coalesce(output_state, 'none') = 'ok')",
    )
    yield from books.none(
        "items do not stand as their output",
        "SELECT i.id, i.output_state, o.state FROM items i "
        "JOIN requests r ON r.item_id = i.id AND r.attempt = i.attempts JOIN outputs o ON o.request_id = r.id "
        f"WHERE i.id NOT IN {of_use} AND i.output_state IS DISTINCT FROM o.state",
    )
    yield from books.none(
        "items succeeded without a state of their output, or have one without",
        "SELECT id, state, output_state FROM items WHERE (state = 'succeeded') <> (output_state IS NOT NULL)",
    )


def the_tallies_are_the_rows(books: Books) -> Iterator[str]:
    """The sums of tallies are the counts of rows, batch by batch and run by run; those of the ledger its lines."""
    counted: dict[tuple[str, int], Counter[str]] = {}
    for line in books.desk.rows("SELECT batch_id, state, count(*) AS n FROM requests GROUP BY 1, 2"):
        counted.setdefault(("batch", line.batch_id), Counter())[line.state] = line.n
    for line in books.desk.rows("SELECT run_id, state, output_state, count(*) AS n FROM items GROUP BY 1, 2, 3"):
        counter = counted.setdefault(("run", line.run_id), Counter())
        counter[line.state] += line.n
        counter[line.output_state or ""] += line.n
    tallied: dict[tuple[str, int], Counter[str]] = {}
    sums = ", ".join(f"sum({name}) AS {name}" for name in (*OUTCOMES, "ok", "invalid"))
    for table, scope in (("batch", "requests"), ("run", "items")):
        for line in books.desk.rows(f"SELECT {table}_id AS id, {sums} FROM tallies WHERE scope = '{scope}' GROUP BY 1"):
            tallied[table, line.id] = Counter({name: getattr(line, name) for name in (*OUTCOMES, "ok", "invalid")})
    for table, row_id in sorted(counted.keys() | tallied.keys()):
        rows, sum_ = (one.get((table, row_id), Counter()) for one in (counted, tallied))
        wrong = [
            f"{name} {sum_[name]} for {rows[name]}" for name in (*OUTCOMES, "ok", "invalid") if sum_[name] != rows[name]
        ]
        if wrong:
            yield f"{table} {row_id} tallies {', '.join(wrong)}"
    yield from _ledger_tallied(books)


def _ledger_tallied(books: Books) -> Iterator[str]:
    """What was tallied is what the lines come to, by run, batch, account, model, day, price and geography."""
    counts = (*TOKENS, "web_searches")
    sums = ", ".join(f"coalesce(sum({name}), 0)" for name in counts)
    lines = books.desk.rows(
        "SELECT run_id, api_batch_id, account_id, model, CAST(priced_at AT TIME ZONE 'UTC' AS date), price, "
        "inference_geo, count(*), count(*) FILTER (WHERE cost_usd IS NULL), "
        "count(*) FILTER (WHERE sync_cost_usd IS NULL), count(*) FILTER (WHERE duplicate), "
        "coalesce(sum(cost_usd), 0), coalesce(sum(sync_cost_usd) FILTER (WHERE NOT duplicate), 0), "
        "coalesce(sum(uncached_cost_usd) FILTER (WHERE NOT duplicate), 0), "
        f"coalesce(sum(cost_usd) FILTER (WHERE duplicate), 0), {sums} FROM ledger_lines GROUP BY 1, 2, 3, 4, 5, 6, 7"
    )
    costs = ("cost_usd", "sync_cost_usd", "uncached_cost_usd", "duplicate_cost_usd")
    names = ("lines", "unpriced", "sync_unpriced", "duplicates", *costs, *counts)
    tallied = books.desk.rows(
        f"SELECT run_id, api_batch_id, account_id, model, day, price, inference_geo, "
        f"{', '.join(f'sum({name})' for name in names)} FROM ledger_tallies GROUP BY 1, 2, 3, 4, 5, 6, 7"
    )
    for odd in sorted({tuple(line) for line in lines} ^ {tuple(line) for line in tallied}, key=str):
        yield f"the ledger and its tallies differ in {odd}"


def the_moves_are_allowed(books: Books) -> Iterator[str]:
    """Events tell the way of each batch, run and upload without a gap, by moves that the tables of moves know."""
    yield from _chains(books, "batches", "batch_id IS NOT NULL", "batch_id", "planned", BATCH_MOVES, BatchState)
    of_runs = "run_id IS NOT NULL AND batch_id IS NULL"
    yield from _chains(books, "runs", of_runs, "run_id", "planning", RUN_MOVES, RunState)
    of_uploads = "target_kind = 'upload'"
    yield from _chains(books, "uploads", of_uploads, "target::bigint", "waiting", UPLOAD_MOVES, UploadState)


def _chains(books: Books, table: str, which: str, key: str, first: str, moves: Any, states: Any) -> Iterator[str]:
    at: dict[int, str] = {row.id: first for row in books.desk.rows(f"SELECT id FROM {table}")}
    for event in books.desk.rows(
        f"SELECT {key} AS id, from_state, to_state FROM events WHERE kind = 'move' AND {which} ORDER BY events.id"
    ):
        if event.from_state != at[event.id]:
            yield f"{table} {event.id} left {event.from_state} where it was {at[event.id]}"
        if states(event.to_state) not in moves[states(event.from_state)]:
            yield f"{table} {event.id} went from {event.from_state} to {event.to_state}"
        at[event.id] = event.to_state
    for row in books.desk.rows(f"SELECT id, state FROM {table}"):
        if at[row.id] != row.state:
            yield f"{table} {row.id} is {row.state}, and no event moved it there from {at[row.id]}"


def no_custom_id_is_accepted_twice(books: Books) -> Iterator[str]:
    """The API accepted each request once."""
    twice = [name for name, count in Counter(custom_id for _, custom_id in books.accepted).items() if count > 1]
    if twice:
        yield f"{len(twice)} custom_ids were accepted more than once, such as {', '.join(sorted(twice)[:SHOWN])}"


def what_the_api_accepted_is_what_was_sent(books: Books) -> Iterator[str]:
    """Each batch at the API is known by its id, with the requests that it holds; but for POSTs not settled yet."""
    at_the_api = set(books.accepted)
    sent = books.desk.rows(
        "SELECT b.api_id, r.custom_id FROM requests r JOIN batches b ON b.id = r.batch_id WHERE b.api_id IS NOT NULL"
    )
    known = {(line.api_id, line.custom_id) for line in sent if line.api_id not in books.strangers}
    if known - at_the_api:
        yield f"{len(known - at_the_api)} requests were never accepted, such as {min(known - at_the_api)}"
    unsettled = {
        line.custom_id
        for line in books.desk.rows(
            "SELECT r.custom_id FROM requests r JOIN batches b ON b.id = r.batch_id "
            "WHERE b.state IN ('submitting', 'submit_unknown') OR (b.api_id = ANY(:strangers))",
            strangers=list(books.strangers),
        )
    }
    lost = {(batch, custom_id) for batch, custom_id in at_the_api - known if custom_id not in unsettled}
    if lost:
        names = ", ".join(sorted({batch for batch, _ in lost})[:SHOWN])
        yield f"{len(lost)} accepted requests are in batches that no row knows with them ({names})"


def the_ledger_is_the_bill(books: Books) -> Iterator[str]:
    """The ledger's lines, tokens and dollars are the sandbox's bill, batch by batch, to the last digit."""
    sums = ", ".join(f"sum({ours})::bigint AS {ours}" for ours in TOKENS)
    ledger = {
        line.api_batch_id: {"requests": line.lines}
        | {theirs: getattr(line, ours) for ours, theirs in TOKENS.items()}
        | {"picodollars": line.cost * 10**12, "unpriced": line.unpriced}
        for line in books.desk.rows(
            f"SELECT api_batch_id, count(*) AS lines, {sums}, coalesce(sum(cost_usd), 0) AS cost, "
            "count(*) - count(cost_usd) AS unpriced FROM ledger_lines GROUP BY 1"
        )
    }
    bill = {
        batch["id"]: batch["total"]
        for batch in books.sandbox.bill()["batches"]
        if batch["total"]["requests"] and batch["id"] not in books.strangers
    }
    for batch in sorted(ledger.keys() | bill.keys()):
        if ledger.get(batch) != bill.get(batch):
            yield f"{batch} was billed as {bill.get(batch)} and is in the ledger as {ledger.get(batch)}"
    yield from books.none("ledger lines are unpriced", "SELECT id, model FROM ledger_lines WHERE cost_usd IS NULL")
    yield from books.none(
        "ledger lines are marked as second answers, and there is no first",
        "SELECT id, custom_id FROM ledger_lines second WHERE duplicate AND NOT EXISTS "
        "(SELECT 1 FROM ledger_lines first WHERE first.custom_id = second.custom_id AND NOT first.duplicate)",
    )


def nobody_pays_twice(books: Books) -> Iterator[str]:
    """No record with a good answer was sent again, and no answer was billed for two batches."""
    yield from books.none(
        "records were sent again after a good answer",
        "SELECT r.item_id, r.attempt FROM requests r JOIN outputs o ON o.request_id = r.id AND o.state = 'ok' "
        "JOIN results res ON res.request_id = r.id JOIN requests later ON later.item_id = r.item_id "
        "AND later.attempt > r.attempt AND later.state <> 'stopped' JOIN batches b ON b.id = later.batch_id "
        # What a mended processor finds to be good was no good answer when it was sent again.
        "WHERE res.received_at < b.created_at AND o.reprocessing_id IS NULL",
    )
    yield from books.none(
        "answers were billed more than once",
        "SELECT custom_id, count(*) FROM ledger_lines GROUP BY 1 HAVING count(*) > 1",
    )


def nothing_that_is_to_be_delivered_is_forgotten(books: Books) -> Iterator[str]:
    """Each end of a run has a round for each of its destinations, and what waits is due."""
    yield from books.none(
        "runs ended without a round for a destination",
        "SELECT r.id, d.name FROM runs r JOIN run_destinations n ON n.run_id = r.id JOIN destinations d "
        "ON d.id = n.destination_id WHERE r.state IN ('finished', 'cancelled') AND NOT EXISTS (SELECT 1 "
        "FROM deliveries v WHERE v.run_id = r.id AND v.name = d.name AND v.created_at >= r.state_since)",
    )
    yield from books.none(
        "deliveries wait, and nobody is to look at them",
        "SELECT v.id, v.name FROM deliveries v LEFT JOIN destinations d "
        "ON v.kind = 'sink' AND d.name = v.name WHERE v.state = 'waiting' AND coalesce(d.enabled, true) "
        "AND NOT EXISTS (SELECT 1 FROM steps WHERE step = 'deliver' AND target_id = v.id)",
    )


def what_was_delivered_is_what_the_runs_have(books: Books) -> Iterator[str]:
    """Where outputs go to a table beside ours, it has each of them once, and nothing else."""
    latest = (
        "SELECT v.run_id FROM deliveries v JOIN destinations d ON d.name = v.name AND d.sink = 'sql_table' "
        f"AND d.settings->>'table' = '{TABLE}' WHERE v.kind = 'sink' AND v.state = 'delivered' AND NOT EXISTS "
        "(SELECT 1 FROM deliveries w WHERE w.run_id = v.run_id AND w.kind = v.kind AND w.round > v.round)"
    )
    outputs = (
        "SELECT r.custom_id, CASE i.output_state WHEN 'ok' THEN 'succeeded' ELSE 'invalid' END AS status "
        "FROM items i JOIN requests r ON r.item_id = i.id JOIN outputs o ON o.request_id = r.id AND "
        "o.state = i.output_state AND (o.state = 'ok' OR r.attempt = i.attempts) "
        f"WHERE i.run_id IN ({latest}) AND NOT EXISTS (SELECT 1 FROM requests e JOIN outputs p ON p.request_id = e.id "
        "WHERE i.output_state = 'ok' AND e.item_id = i.id AND e.attempt < r.attempt AND p.state = 'ok')"
    )
    table = f"SELECT custom_id, status FROM {TABLE} WHERE run IN ({latest})"
    if books.desk.scalar("SELECT to_regclass(:table) IS NULL", table=TABLE):  # the sink makes it for the first row
        table = "SELECT '', '' WHERE false"
    yield from books.none("outputs were not delivered", f"({outputs}) EXCEPT ALL ({table})")
    yield from books.none("delivered rows are no outputs", f"({table}) EXCEPT ALL ({outputs})")


#: What holds at any moment, and what holds once everything is over.
ALWAYS: tuple[Line, ...] = (
    the_moves_are_allowed,
    the_tallies_are_the_rows,
    every_result_is_stored_once,
    no_custom_id_is_accepted_twice,
    what_the_api_accepted_is_what_was_sent,
    nothing_that_is_to_be_delivered_is_forgotten,
)
AT_THE_END: tuple[Line, ...] = (
    every_request_is_accounted_for,
    every_output_is_applied_once,
    the_ledger_is_the_bill,
    nobody_pays_twice,
    what_was_delivered_is_what_the_runs_have,
)
