"""Stacked progress: how many of a run or batch stand where, as segments of one bar with a legend.
Lists, details and the live endpoint draw the same object with the same template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from webapp import db
from webapp.admin.formats import words
from webapp.batches import resubmissions
from webapp.batches.queries import Counts, batch_counts, run_counts

WIDTH = 1000.0  # of the drawing, in its own units
LEAST = 4.0  # width of a segment that holds anything at all: one failure among 100,000 is seen

FAILURES = ("invalid", "errored", "expired", "missing", "canceled", "stopped")
OPEN = ("retrying", "pending")


@dataclass(frozen=True, slots=True)
class Segment:
    """One colour of the bar: how many, and where it is drawn."""

    name: str
    count: int
    x: float
    width: float

    @property
    def words(self) -> str:
        return words(self.name)


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts of one run or batch over its total."""

    total: int
    counts: Counts
    noun: str

    @property
    def parts(self) -> list[tuple[str, int]]:
        """Every kind with its count, in the order of the bar; they add up to the total."""
        counts = self.counts
        parts = [("succeeded", counts.succeeded - counts.invalid)]
        parts += [(name, getattr(counts, name)) for name in FAILURES]
        settled = sum(count for _, count in parts)
        retrying = self.counts.retrying
        return [*parts, ("retrying", retrying), ("pending", max(self.total - settled - retrying, 0))]

    @property
    def settled(self) -> int:
        return sum(count for name, count in self.parts if name not in OPEN)

    @property
    def failed(self) -> int:
        return self.counts.failed

    @property
    def resubmittable(self) -> int:
        """What a person may send again: failures, and what would go again by itself."""
        return self.counts.failed + self.counts.retrying

    @property
    def percent(self) -> int:
        """Whole percents settled; 100 only when nothing is pending or goes again."""
        return self.settled * 100 // self.total if self.total else 0

    @property
    def segments(self) -> list[Segment]:
        """The kinds that hold anything, with their place; the small ones are drawn wider than they are."""
        held = [(name, count) for name, count in self.parts if count]
        scale = [(max(WIDTH * count / self.total, LEAST)) for _, count in held]
        shrink = WIDTH / sum(scale) if scale else 1.0
        found, x = [], 0.0
        for (name, count), width in zip(held, scale, strict=True):
            found.append(Segment(name, count, round(x, 2), round(width * shrink, 2)))
            x += width * shrink
        return found

    @property
    def spoken(self) -> str:
        """The bar in words."""
        told = ", ".join(f"{count:,} {words(name)}" for name, count in self.parts if count)
        return f"{self.settled:,} of {self.total:,} {self.noun} settled" + (f": {told}" if told else "")


def of_runs(tx: Connection, runs: Sequence[tuple[int, int]]) -> dict[int, Progress]:
    """Progress of runs, given as (id, subjects)."""
    counts = run_counts(tx, [run_id for run_id, _ in runs]) if runs else {}
    return {run_id: _progress(total, counts.get(run_id, Counts()), "subjects") for run_id, total in runs}


def of_resubmissions(tx: Connection, wish_ids: Sequence[int]) -> dict[int, Progress]:
    """What became of the attempts that wishes have made."""
    found = resubmissions.progress(tx, wish_ids) if wish_ids else {}
    return {wish_id: _progress(total, counts, "new attempts") for wish_id, (total, counts) in found.items()}


def of_click(tx: Connection, wish_id: int) -> Progress:
    """The same for all wishes of the click that one belongs to, together."""
    found = resubmissions.progress(tx, resubmissions.click_ids(tx, wish_id)).values()
    names = ("succeeded", *FAILURES)
    sums = {name: sum(getattr(counts, name) for _, counts in found) for name in names}
    return _progress(sum(total for total, _ in found), Counts(**sums), "new attempts")


def of_batches(tx: Connection, batches: Sequence[tuple[int, int]]) -> dict[int, Progress]:
    """Progress of batches, given as (id, total)."""
    ids = [batch_id for batch_id, _ in batches]
    counts, useless = (batch_counts(tx, ids), _invalid(tx, ids)) if ids else ({}, {})
    return {
        batch_id: _progress(
            total, replace(counts.get(batch_id, Counts()), invalid=useless.get(batch_id, 0)), "requests"
        )
        for batch_id, total in batches
    }


def _invalid(tx: Connection, batch_ids: Sequence[int]) -> dict[int, int]:
    """How many answers of batches are no use: told of items, since a request succeeded all the same."""
    found = db.rows(
        tx,
        "SELECT batch_id, sum(invalid) FROM tallies WHERE batch_id = ANY(:ids) AND scope = 'items' GROUP BY 1",
        ids=list(batch_ids),
    )
    return {batch_id: int(count) for batch_id, count in found}


def _progress(total: int, counts: Counts, noun: str) -> Progress:
    return Progress(max(total, counts.total), counts, noun)
