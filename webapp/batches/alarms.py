"""What a person should look at though no step is stuck: results about to vanish, batches of which nothing came,
answers that cost nothing or far from what was estimated, schedules that were stopped, deliveries that were given up.
The home page and `doctor` ask; reads only.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.batches.completion import RESULTS_DAYS
from webapp.delivery.deliveries import whither

WARN_DAYS = 7  # before results vanish: a batch ends within a day, so one this old has been in trouble for long
RECENT_DAYS = 7  # what ended before that is history
MOST = 10
ENOUGH = 20  # answers of a run by which it is told what all of them will cost
FAR = 2  # times the top of an estimate, or the bottom by so much
CENT = Decimal("0.01")  # what it is off by at the least


@dataclass(frozen=True, slots=True)
class Alarm:
    """One thing to look at: a sentence, and what to do about it."""

    kind: str  # one or two words, for a badge
    run_id: int | None
    batch_id: int | None  # None: it is about the run as a whole
    words: str
    mend: str
    schedule_id: int | None = None  # it is about a schedule, and no run
    delivery_id: int | None = None  # ... a delivery of the run, which can be tried again

    @property
    def about(self) -> str:
        """What it is about."""
        if self.schedule_id is not None:
            return f"Schedule {self.schedule_id}"
        return f"Run {self.run_id}" if self.batch_id is None else f"Batch {self.batch_id} of run {self.run_id}"


def alarms(tx: Connection) -> list[Alarm]:
    """All alarms there are, at most `MOST` of each kind."""
    return [
        *_vanishing(tx),
        *_all_failed(tx),
        *_free(tx),
        *_far_off(tx),
        *_stopped_schedules(tx),
        *_not_delivered(tx),
    ]


def _vanishing(tx: Connection) -> list[Alarm]:
    """Batches whose results are not all stored and will soon be gone at the API."""
    found = db.rows(
        tx,
        """
        SELECT id, run_id, total, state, owed,
               CAST(extract(epoch FROM api_created_at + make_interval(days => :kept) - now()) / 86400 AS int) AS days
        FROM batches
        WHERE (state NOT IN ('done', 'failed', 'discarded') OR (state = 'done' AND owed > 0)) AND api_id IS NOT NULL
          AND api_created_at BETWEEN now() - make_interval(days => :kept)
                                 AND now() - make_interval(days => :kept - :warn)
        ORDER BY api_created_at LIMIT :most
        """,
        kept=RESULTS_DAYS,
        warn=WARN_DAYS,
        most=MOST,
    )
    return [
        Alarm(
            "vanishing",
            batch.run_id,
            batch.id,
            f"{_what_lacks(batch)} In {max(batch.days, 0)} days the API no longer has the results, paid or not.",
            "Fetch its results once more." if batch.state == "done" else "Its page says what it waits for: mend that.",
        )
        for batch in found
    ]


def _what_lacks(batch: Any) -> str:
    if batch.state == "done":
        return f"{batch.owed:,} of its answers are paid and have not come."
    return f"The results of its {batch.total:,} requests are not stored yet."


def _all_failed(tx: Connection) -> list[Alarm]:
    """Batches that ended lately without one answer, that nobody cancelled, and that nothing was sent after."""
    found = db.rows(
        tx,
        """
        SELECT b.id, b.run_id, b.total, (
            SELECT left(s.error_message, 240) FROM requests r JOIN results s ON s.request_id = r.id
            WHERE r.batch_id = b.id AND s.error_message IS NOT NULL LIMIT 1) AS error
        FROM batches b JOIN runs run ON run.id = b.run_id
        WHERE b.state = 'done' AND b.state_since > now() - make_interval(days => :recent)
          AND coalesce(b.cancel_wanted_at, run.cancel_wanted_at) IS NULL
          AND (b.owed > 0 OR coalesce(CAST(b.api_counts->>'succeeded' AS bigint), 0) = 0)
          AND (SELECT sum(t.succeeded) FROM tallies t WHERE t.batch_id = b.id AND t.scope = 'requests') = 0
          AND NOT EXISTS (SELECT 1 FROM batches later WHERE later.run_id = b.run_id AND later.ordinal > b.ordinal
                          AND later.created_at > b.state_since)
        ORDER BY b.id DESC LIMIT :most
        """,
        recent=RECENT_DAYS,
        most=MOST,
    )
    return [
        Alarm(
            "all failed",
            batch.run_id,
            batch.id,
            f"None of its {batch.total:,} requests was answered."
            + (f" The first says: {batch.error}" * bool(batch.error)),
            "Mend the cause, then resubmit the run's failures.",
        )
        for batch in found
    ]


def _free(tx: Connection) -> list[Alarm]:
    """Runs with batches of late whose answers cost nothing together: they are billed somewhere. Unpriced is not free,
    and a refusal may be.
    """
    found = db.rows(
        tx,
        """
        SELECT run_id, count(*) AS batches, CAST(sum(answers) AS bigint) AS answers,
               (SELECT count(*) FROM batches every WHERE every.run_id = free.run_id AND every.state = 'done') AS all
        FROM (
            SELECT b.run_id, coalesce(CAST(b.api_counts->>'succeeded' AS bigint), 0) - b.owed AS answers FROM batches b
            WHERE b.state = 'done' AND b.state_since > now() - make_interval(days => :recent) AND NOT EXISTS (
                SELECT 1 FROM ledger_tallies l WHERE l.api_batch_id = b.api_id
                AND (l.unpriced > 0 OR l.cost_usd > 0 OR l.price LIKE '% refused'))
        ) AS free WHERE answers > 0 GROUP BY run_id ORDER BY run_id DESC LIMIT :most
        """,
        recent=RECENT_DAYS,
        most=MOST,
    )
    return [
        Alarm(
            "no cost",
            run.run_id,
            None,
            f"{run.answers:,} answers came{'' if run.batches == run.all else f' in {run.batches:,} of its batches'}, "
            "and all of them together cost nothing. They are billed somewhere.",
            "Compare the Prices page and the run's answers with the account's bill.",
        )
        for run in found
    ]


def _far_off(tx: Connection) -> list[Alarm]:
    """Runs of late whose answers cost far more or less than was estimated before they were sent, second ones apart.
    Nobody pays for those of the sandbox.
    """
    found = db.rows(
        tx,
        """
        SELECT run_id, low_usd, high_usd, whole FROM (
            SELECT e.run_id, e.low_usd, e.high_usd, billed.cost / billed.answers * e.requests AS whole
            FROM runs r JOIN run_estimates e ON e.run_id = r.id CROSS JOIN LATERAL (
                SELECT sum(t.cost_usd - t.duplicate_cost_usd) AS cost, sum(t.lines - t.duplicates) AS answers,
                       sum(t.unpriced) AS unpriced
                FROM ledger_tallies t JOIN accounts a ON a.id = t.account_id AND NOT a.sandbox WHERE t.run_id = r.id
            ) AS billed
            WHERE r.state_since > now() - make_interval(days => :recent) AND e.high_usd IS NOT NULL
              AND billed.unpriced = 0 AND billed.answers >= greatest(least(:enough, e.requests), 1)
        ) AS priced
        WHERE (whole > :far * high_usd AND whole - high_usd >= :cent)
           OR (whole < low_usd / :far AND low_usd - whole >= :cent)
        ORDER BY run_id DESC LIMIT :most
        """,
        recent=RECENT_DAYS,
        enough=ENOUGH,
        far=FAR,
        cent=CENT,
        most=MOST,
    )
    return [
        Alarm(
            "cost",
            run.run_id,
            None,
            f"By what its answers cost so far, all of them cost ${run.whole:,.2f}, where ${run.low_usd:,.2f} to "
            f"${run.high_usd:,.2f} were estimated.",
            "Look at some answers and at its settings; pause it if it goes on.",
        )
        for run in found
    ]


def _stopped_schedules(tx: Connection) -> list[Alarm]:
    """Schedules that cannot go on and were stopped by no person."""
    found = db.rows(
        tx,
        "SELECT id, name, problem FROM schedules WHERE NOT enabled AND problem IS NOT NULL ORDER BY id LIMIT :most",
        most=MOST,
    )
    return [
        Alarm(
            "stopped",
            None,
            None,
            f"“{one.name}” makes no more runs: {one.problem}",
            "Mend that or change its settings, then resume it.",
            schedule_id=one.id,
        )
        for one in found
    ]


def _not_delivered(tx: Connection) -> list[Alarm]:
    """Deliveries that were tried often enough, or cannot be done as things are."""
    found = db.rows(
        tx,
        "SELECT id, run_id, kind, name, reason FROM deliveries WHERE state = 'failed' ORDER BY id DESC LIMIT :most",
        most=MOST,
    )
    return [
        Alarm(
            "not delivered",
            one.run_id,
            None,
            f"{whither(one)} failed: {one.reason}",
            "Mend the cause, then try again.",
            delivery_id=one.id,
        )
        for one in found
    ]
