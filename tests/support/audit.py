"""The books of an installation against themselves and against the sandbox's: what must hold after any run.

Tests call `audit` at their end; it says each sum that does not agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

from support.desk import DeskDriver
from support.sandbox import Sandbox

from webapp.batches.states import BATCH_MOVES, RUN_MOVES, BatchState, RunState

#: The ledger's column for each class of tokens that the sandbox bills.
TOKENS = {
    "input_tokens": "input_tokens",
    "write_5m_tokens": "cache_creation_5m_input_tokens",
    "write_1h_tokens": "cache_creation_1h_input_tokens",
    "read_tokens": "cache_read_input_tokens",
    "output_tokens": "output_tokens",
}
OUTCOMES = ("pending", "succeeded", "errored", "canceled", "expired", "missing", "stopped")


def audit(desk: DeskDriver, sandbox: Sandbox, *, over: bool = True, strangers: Collection[str] = ()) -> None:
    """Check every account of every run.

    :param over: False where batches are still under way: nothing is asked of what is not there yet.
    :param strangers: ids of batches at the API that are not of this installation.
    """
    moves_are_allowed(desk)
    tallies_are_the_rows(desk)
    results_are_stored_once(desk)
    nothing_is_accepted_twice(desk, sandbox, strangers)
    if over:
        every_request_is_accounted_for(desk)
        outputs_are_made_once(desk)
        the_ledger_is_the_bill(desk, sandbox, strangers)


def every_request_is_accounted_for(desk: DeskDriver) -> None:
    """Nothing pends, each item stands as its attempts do, no open step is left."""
    assert not desk.rows("SELECT id FROM items WHERE state = 'pending' OR output_state = 'waiting'")
    assert not desk.rows(
        "SELECT r.id, r.state FROM requests r JOIN batches b ON b.id = r.batch_id "
        "WHERE r.state = 'pending' OR b.state NOT IN ('done', 'failed', 'discarded')"
    )
    # By its latest attempt; where that failed, by an earlier one whose line came late.
    assert not desk.rows(
        "SELECT i.id, i.state, r.state FROM items i JOIN requests r ON r.item_id = i.id AND r.attempt = i.attempts "
        "WHERE r.state <> i.state AND NOT (i.state = 'succeeded' AND EXISTS (SELECT 1 FROM requests late "
        "WHERE late.item_id = i.id AND late.state = 'succeeded'))"
    )
    wrong = "SELECT i.id FROM items i WHERE i.attempts <> (SELECT count(*) FROM requests r WHERE r.item_id = i.id)"
    assert not desk.rows(wrong)
    wrong = "SELECT id, total FROM batches b WHERE state <> 'discarded' AND total <> "
    assert not desk.rows(wrong + "(SELECT count(*) FROM requests r WHERE r.batch_id = b.id)")
    assert not desk.rows("SELECT * FROM submissions WHERE outcome IS NULL OR outcome = 'unknown'")
    # One that was cancelled may have been before each of its subjects had its item.
    for run in desk.rows("SELECT id, subjects FROM runs WHERE state = 'finished'"):
        assert desk.scalar("SELECT count(*) FROM items WHERE run_id = :id", id=run.id) == run.subjects


def results_are_stored_once(desk: DeskDriver) -> None:
    """A result for every answered request, of its kind, and none for any other."""
    assert not desk.rows(
        "SELECT r.id, r.state, res.kind FROM results res LEFT JOIN requests r ON r.id = res.request_id "
        "WHERE r.state IS DISTINCT FROM res.kind"
    )
    unanswered = "SELECT r.id FROM requests r JOIN batches b ON b.id = r.batch_id WHERE b.state <> 'failed' "
    answered = "AND r.state IN ('succeeded', 'errored', 'canceled', 'expired') "
    assert not desk.rows(
        unanswered + answered + "AND NOT EXISTS (SELECT 1 FROM results res WHERE res.request_id = r.id)"
    )


def outputs_are_made_once(desk: DeskDriver) -> None:
    """An output for every succeeded request; an item with one of use is ok, any other stands as its last one does."""
    assert not desk.rows(
        "SELECT r.id, o.request_id FROM requests r FULL JOIN outputs o ON o.request_id = r.id "
        "WHERE (r.state = 'succeeded') IS DISTINCT FROM (o.request_id IS NOT NULL)"
    )
    of_use = "(SELECT r.item_id FROM requests r JOIN outputs o ON o.request_id = r.id WHERE o.state = 'ok')"
    assert not desk.rows(f"SELECT id FROM items WHERE (id IN {of_use}) <> (coalesce(output_state, 'none') = 'ok')")
    assert not desk.rows(
        "SELECT i.id FROM items i JOIN requests r ON r.item_id = i.id AND r.attempt = i.attempts "
        f"LEFT JOIN outputs o ON o.request_id = r.id WHERE i.id NOT IN {of_use} AND o.state IS NOT NULL "
        "AND i.output_state IS DISTINCT FROM o.state"
    )
    assert not desk.rows("SELECT id FROM items WHERE (state = 'succeeded') <> (output_state IS NOT NULL)")


def tallies_are_the_rows(desk: DeskDriver) -> None:
    """The sums of tallies are the counts of rows, batch by batch and run by run."""
    sums = ", ".join(f"sum({name}) AS {name}" for name in (*OUTCOMES, "ok", "invalid"))
    requests: dict[int, Counter[str]] = {}
    for line in desk.rows("SELECT batch_id, state, count(*) AS n FROM requests GROUP BY 1, 2"):
        requests.setdefault(line.batch_id, Counter())[line.state] = line.n
    for line in desk.rows(f"SELECT batch_id, {sums} FROM tallies WHERE scope = 'requests' GROUP BY 1"):
        tallied = {name: getattr(line, name) for name in OUTCOMES}
        assert tallied == {name: requests.get(line.batch_id, Counter())[name] for name in OUTCOMES}, line.batch_id
    items: dict[int, Counter[str]] = {}
    for line in desk.rows("SELECT run_id, state, output_state, count(*) AS n FROM items GROUP BY 1, 2, 3"):
        counter = items.setdefault(line.run_id, Counter())
        counter[line.state] += line.n
        counter[line.output_state or ""] += line.n
    for line in desk.rows(f"SELECT run_id, {sums} FROM tallies WHERE scope = 'items' GROUP BY 1"):
        tallied = {name: getattr(line, name) for name in (*OUTCOMES, "ok", "invalid")}
        assert tallied == {name: items.get(line.run_id, Counter())[name] for name in tallied}, line.run_id


def moves_are_allowed(desk: DeskDriver) -> None:
    """Events tell the way of each batch and run without a gap, by moves that the tables of moves know."""
    _chains(desk, "batches", "batch_id IS NOT NULL", "batch_id", "planned", BATCH_MOVES, BatchState)
    _chains(desk, "runs", "batch_id IS NULL", "run_id", "planning", RUN_MOVES, RunState)


def _chains(desk: DeskDriver, table: str, which: str, key: str, first: str, moves: Any, states: Any) -> None:
    at: dict[int, str] = {row.id: first for row in desk.rows(f"SELECT id FROM {table}")}
    for event in desk.rows(
        f"SELECT {key} AS id, from_state, to_state FROM events WHERE kind = 'move' AND {which} ORDER BY events.id"
    ):
        assert event.from_state == at[event.id], (table, at[event.id], event)
        assert states(event.to_state) in moves[states(event.from_state)], (table, event)
        at[event.id] = event.to_state
    for row in desk.rows(f"SELECT id, state FROM {table}"):
        assert at[row.id] == row.state, (table, row)


def nothing_is_accepted_twice(desk: DeskDriver, sandbox: Sandbox, strangers: Collection[str] = ()) -> None:
    """What the API accepted is what was sent, each request once, each batch known by its id."""
    accepted = [line for line in sandbox.accepted() if line["batch_id"] not in strangers]
    at_the_api = {(line["batch_id"], line["custom_id"]) for line in accepted}
    assert len(accepted) == len(at_the_api) == len({custom_id for _, custom_id in at_the_api})
    sent = desk.rows(
        "SELECT b.api_id, r.custom_id FROM requests r JOIN batches b ON b.id = r.batch_id WHERE b.api_id IS NOT NULL"
    )
    known = {(line.api_id, line.custom_id) for line in sent if line.api_id not in strangers}
    assert known <= at_the_api
    unsettled = {
        line.custom_id
        for line in desk.rows(
            "SELECT r.custom_id FROM requests r JOIN batches b ON b.id = r.batch_id "
            "WHERE b.state IN ('submitting', 'submit_unknown') OR (b.api_id = ANY(:strangers))",
            strangers=list(strangers),
        )
    }
    assert {custom_id for _, custom_id in at_the_api - known} <= unsettled


def the_ledger_is_the_bill(desk: DeskDriver, sandbox: Sandbox, strangers: Collection[str] = ()) -> None:
    """The ledger's lines and tokens are the sandbox's bill, batch by batch, to the token."""
    sums = ", ".join(f"sum({ours})::bigint AS {ours}" for ours in TOKENS)
    ledger = {
        line.api_batch_id: {"requests": line.lines} | {theirs: getattr(line, ours) for ours, theirs in TOKENS.items()}
        for line in desk.rows(f"SELECT api_batch_id, count(*) AS lines, {sums} FROM ledger_lines GROUP BY 1")
    }
    bill = {
        batch["id"]: batch["total"]
        for batch in sandbox.bill()["batches"]
        if batch["total"]["requests"] and batch["id"] not in strangers
    }
    assert ledger == bill
    assert not desk.rows("SELECT id FROM ledger_lines WHERE cost_usd IS NULL")
