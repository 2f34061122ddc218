"""What the prompt cache did for a run or a batch, by the ledger: how much of what it could have read it read, and why
that was little. Pages ask; nothing is stored.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.money.prediction import for_an_hour, guessed_tokens
from webapp.money.prices import min_cacheable
from webapp.records import jsontext

LOW = Decimal("0.9")  # of the tokens that could have been read; below it a page says why
MOST_BATCHES = 5_000  # of a run whose times are compared
HOUR, FIVE_MINUTES = timedelta(hours=1), timedelta(minutes=5)


class Why(StrEnum):
    """Why a batch wrote what it could have read."""

    TOO_EARLY = "too early"  # no batch of the run had ended when it was sent
    TOO_LATE = "too late"  # the last one that had, had ended before the time to live
    TOO_SLOW = "too slow"  # it took longer than the time to live
    MISSED = "missed"  # it was there


@dataclass(frozen=True, slots=True)
class Hits:
    """How well the cache was used.

    :param rate: the part of the tokens that were cached which was read; None: none were cached.
    :param words: why that is little; empty: it is not.
    """

    rate: Decimal | None
    read: int
    written: int
    words: str


@dataclass(frozen=True, slots=True)
class Sent:
    """One batch as the API had it, and the tokens of its answers."""

    id: int
    created_at: datetime
    ended_at: datetime | None
    lines: int
    read: int
    written: int


@dataclass(frozen=True, slots=True)
class Marked:
    """What of a run's requests is marked for the cache.

    :param own: whether a request's own part is marked, or its end.
    """

    shared: dict[str, Any]
    model: str
    own: bool

    @property
    def lives(self) -> timedelta:
        """How long the shared part stays in the cache unread."""
        return HOUR if for_an_hour(self.shared) else FIVE_MINUTES


def of_run(tx: Connection, run_id: int) -> Hits | None:
    """What the cache did for all answers of a run; None: there are none yet, or nothing of it is marked."""
    marked, batches = _marked(tx, run_id), _sent(tx, run_id)
    return None if marked is None else measure(marked, batches, batches)


def of_batch(tx: Connection, run_id: int, batch_id: int) -> Hits | None:
    """The same for one batch of a run."""
    marked, batches = _marked(tx, run_id), _sent(tx, run_id)
    return None if marked is None else measure(marked, batches, [one for one in batches if one.id == batch_id])


def measure(marked: Marked, batches: Sequence[Sent], asked: Sequence[Sent]) -> Hits | None:
    """How well the cache was used by some batches, and if that is little, why.

    :param batches: all of the run, to tell what had been written when.
    """
    lines, read, written = (sum(getattr(one, name) for one in asked) for name in ("lines", "read", "written"))
    if not lines:
        return None
    if not read + written:
        words = _not_cached(marked)
        return Hits(None, 0, 0, words) if words else None
    rate = Decimal(read) / (read + written)
    each = Decimal(read + written) / lines  # tokens of one request that are read or written
    writes = Decimal(written) / each
    if rate >= LOW:
        words = ""
    elif marked.own:
        words = (
            f"{each:,.0f} tokens of each request are marked, also in its own part: that differs from request to "
            "request, and is written each time."
        )
    else:
        words = " ".join(_reasons(marked, batches, asked, each)) if writes > Decimal("1.5") else ""
        words = words or f"It was written once; of {lines:,} answers the others read it."
    return Hits(rate, read, written, words)


def _not_cached(marked: Marked) -> str:
    """Why nothing was cached, though something is marked."""
    tokens, least = guessed_tokens(marked.shared, marked.model), min_cacheable(marked.model)
    if marked.own or not tokens.likely:
        return ""
    if least is None:
        return f"What {marked.model} caches of a shared part of about {tokens.likely:,.0f} tokens is not known."
    if tokens.low < least:
        return f"The shared part of about {tokens.likely:,.0f} tokens is under the {least:,} that the model needs."
    return f"The API cached nothing of the shared part, though it has about {tokens.likely:,.0f} tokens."


def _reasons(marked: Marked, batches: Sequence[Sent], asked: Sequence[Sent], each: Decimal) -> list[str]:
    """What the answers that wrote it came too early or too late for, most of them first."""
    ends = sorted(one.ended_at for one in batches if one.ended_at is not None and one.read + one.written)
    found: Counter[Why] = Counter()
    for one in asked:
        found[_why(marked, one, ends)] += round(one.written / each)
    minutes = int(marked.lives.total_seconds() / 60)
    words = {
        Why.TOO_EARLY: "wrote it themselves in batches that were sent before any had ended: they began before it was "
        "written. Priming lets one request go ahead.",
        Why.TOO_LATE: f"wrote it again in batches that were sent over {minutes} minutes after the last one had ended: "
        "it was no longer there.",
        Why.TOO_SLOW: f"wrote it again in batches that took longer than the {minutes} minutes for which it is kept: "
        "a mark for an hour costs more to write, and less in the end.",
        Why.MISSED: "wrote it again though it had been written: the API promises no hits.",
    }
    return [f"{count:,} answers {words[why]}" for why, count in found.most_common() if count]


def _why(marked: Marked, one: Sent, ends: Sequence[datetime]) -> Why:
    """Why a batch wrote it, by when it was sent and when those before it had ended."""
    before = bisect_left(ends, one.created_at)
    if marked.lives < HOUR and one.ended_at is not None and one.ended_at - one.created_at > marked.lives:
        return Why.TOO_SLOW
    if not before:
        return Why.TOO_EARLY
    return Why.TOO_LATE if one.created_at - ends[before - 1] > marked.lives else Why.MISSED


def _marked(tx: Connection, run_id: int) -> Marked | None:
    run = db.row(
        tx,
        "SELECT r.shared::text AS shared, (SELECT strpos(p.own::text, '\"cache_control\":{') > 0 FROM item_params p "
        "WHERE p.item_id = (SELECT id FROM items WHERE run_id = r.id AND state <> 'errored' "
        "ORDER BY position LIMIT 1)) AS own FROM runs r WHERE r.id = :id",
        id=run_id,
    )
    if run is None or run.shared is None:
        return None
    shared = jsontext.loads(run.shared)
    # A mark beside the messages stands for one at their end.
    return Marked(shared, str(shared.get("model")), bool(run.own or shared.get("cache_control")))


def _sent(tx: Connection, run_id: int) -> list[Sent]:
    found = db.rows(
        tx,
        "SELECT b.id, b.api_created_at, b.api_ended_at, coalesce(t.lines, 0) AS lines, coalesce(t.read, 0) AS read, "
        "coalesce(t.written, 0) AS written FROM batches b LEFT JOIN ("
        "SELECT api_batch_id, sum(lines) AS lines, sum(read_tokens) AS read, "
        "sum(write_5m_tokens + write_1h_tokens) AS written FROM ledger_tallies WHERE run_id = :run "
        "GROUP BY api_batch_id) t ON t.api_batch_id = b.api_id "
        "WHERE b.run_id = :run AND b.api_created_at IS NOT NULL ORDER BY b.id LIMIT :most",
        run=run_id,
        most=MOST_BATCHES,
    )
    return [
        Sent(one.id, one.api_created_at, one.api_ended_at, int(one.lines), int(one.read), int(one.written))
        for one in found
    ]
