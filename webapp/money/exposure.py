"""What is spent on something, and what is under way for it: the two things that caps count. Reads only.
Under way is every batch that was or may be at the API and is not wholly billed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any

from sqlalchemy import Connection

from webapp import db

ENOUGH = 20  # billed answers of a run that say more of the rest than any estimate before them
RESERVE = Decimal("1.25")  # times what such answers cost on average
CENT = Decimal("0.01")

# Of runs r, batches b or ledger tallies t in an account a: what a cap of that kind is about.
_ABOUT = {
    "run": "r.id = CAST(:target AS bigint)",
    "account": "a.id = CAST(:target AS bigint)",
    "task": "r.task = :target",
    "owner": "r.owner = :target",
}
_MONTH = "date_trunc('month', now() AT TIME ZONE 'UTC')"


@dataclass(frozen=True, slots=True)
class Spent:
    """What is gone, or may be.

    :param billed_usd: by the ledger, of what has a price.
    :param unpriced: answers in it that have none.
    :param flying_usd: the most that what is under way is expected to cost beyond what is billed of it.
    :param flying: batches under way; `unknown` of them are of runs whose cost nobody can tell.
    """

    billed_usd: Decimal
    unpriced: int
    flying_usd: Decimal
    flying: int
    unknown: int

    @property
    def total_usd(self) -> Decimal:
        return self.billed_usd + self.flying_usd

    def told(self) -> str:
        """In words, within a sentence."""
        billed = f"{usd(self.billed_usd)} billed"
        if self.unpriced:
            billed += f" (and {self.unpriced:,} answers without a known price)"
        if not self.flying:
            return f"{billed}, nothing under way"
        batches = "batch" if self.flying == 1 else "batches"
        flying = f"{self.flying:,} {batches} under way for up to {usd(self.flying_usd)}"
        return f"{billed}, {flying}" + (f" ({self.unknown:,} of them of unknown cost)" if self.unknown else "")


def usd(amount: Decimal) -> str:
    """Dollars, never less than they are: to the cent, or as exactly as small amounts need."""
    if amount and amount < 1:
        return f"${amount.quantize(Decimal('0.000001'), ROUND_CEILING).normalize():f}"
    return f"${amount.quantize(CENT, ROUND_CEILING):,}"


def of(tx: Connection, scope: str, target: str, *, sandbox: bool) -> Spent:
    """What is spent on a run as a whole, or in this month (UTC) on something else.

    :param sandbox: for months, whether sandbox accounts are meant: their money and real money are never added up.
    """
    monthly = scope != "run"
    billed = db.row(
        tx,
        "SELECT coalesce(sum(t.cost_usd), 0) AS usd, CAST(coalesce(sum(t.unpriced), 0) AS bigint) AS unpriced "  # noqa: S608 - constants
        "FROM ledger_tallies t JOIN runs r ON r.id = t.run_id JOIN accounts a ON a.id = t.account_id "
        f"WHERE {_ABOUT[scope]}"
        + (f" AND t.day >= CAST({_MONTH} AS date) AND a.sandbox = :sandbox" if monthly else " AND t.run_id = r.id"),
        target=target,
        sandbox=sandbox,
    )
    batches = db.rows(
        tx,
        "SELECT b.id, b.run_id, b.total, b.body_bytes, ("  # noqa: S608 - likewise
        "SELECT coalesce(sum(t.cost_usd), 0) FROM ledger_tallies t WHERE t.api_batch_id = b.api_id) AS billed "
        "FROM batches b JOIN runs r ON r.id = b.run_id JOIN accounts a ON a.id = b.account_id "
        # In these words, so that the index of open batches serves.
        "WHERE b.state NOT IN ('done', 'failed', 'discarded') AND b.state <> 'planned' "
        f"AND {_ABOUT[scope]}"
        + (
            f" AND a.sandbox = :sandbox AND coalesce(b.api_created_at, now()) >= {_MONTH} AT TIME ZONE 'UTC'"
            if monthly
            else ""
        ),
        target=target,
        sandbox=sandbox,
    )
    each = _most(tx, batches)
    flying = sum((max(Decimal(), cost - b.billed) for b, cost in zip(batches, each, strict=True) if cost), Decimal())
    return Spent(billed.usd, billed.unpriced, flying, len(batches), sum(cost is None for cost in each))


def most_of_batch(tx: Connection, batch: Any) -> Decimal | None:
    """The most that a batch is expected to cost; None: nobody can tell.

    :param batch: a row with `run_id`, `total` and `body_bytes`.
    """
    return _most(tx, [batch])[0]


def _most(tx: Connection, batches: Sequence[Any]) -> list[Decimal | None]:
    """The same of several. What a run's own answers have cost says more than what was estimated before them."""
    if not batches:
        return []
    found = db.rows(
        tx,
        "SELECT r.id, e.high_usd, e.requests, e.size, t.cost, t.lines, t.unpriced FROM runs r "
        "LEFT JOIN run_estimates e ON e.run_id = r.id CROSS JOIN LATERAL ("
        "SELECT sum(cost_usd) AS cost, coalesce(sum(lines), 0) AS lines, coalesce(sum(unpriced), 0) AS unpriced "
        "FROM ledger_tallies WHERE run_id = r.id) AS t WHERE r.id = ANY(CAST(:ids AS bigint[]))",
        ids=db.array({batch.run_id for batch in batches}),
    )
    runs = {run.id: run for run in found}
    return [_of_batch(runs[batch.run_id], batch) for batch in batches]


def _of_batch(run: Any, batch: Any) -> Decimal | None:
    before = run.high_usd / run.requests if run.high_usd is not None and run.requests else None
    measured = RESERVE * run.cost / run.lines if run.lines and not run.unpriced else None
    each = measured if measured is not None and (run.lines >= ENOUGH or before is None) else before
    if each is None:
        return None
    # A batch of longer requests than the others costs more than its share of them.
    longer = Decimal(batch.body_bytes * run.requests) / (batch.total * run.size) if run.size else Decimal(1)
    return Decimal(each * batch.total * max(Decimal(1), longer))
