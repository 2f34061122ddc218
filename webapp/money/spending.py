"""What was spent and what batching and caching saved, over a period, by whatever one likes to know; and the same by
token class, to be held against an invoice. From tallies of the ledger; the Money page and the command line ask.

Sandbox accounts are never among the others (rule 11): one asks for the one kind or for the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Connection

from webapp import db
from webapp.money.prices import MILLION, PriceBook, Rates, factors_of

MOST_DAYS = 366  # of a period
MOST_PARTS = 100  # of a period that are told apart
# What a sum can be told by: the key, and what it is called, of tallies t with their runs r, accounts a, datasets d.
PARTS = {
    "day": ("t.day", "t.day::text"),
    "month": ("date_trunc('month', t.day)::date", "to_char(min(t.day), 'YYYY-MM')"),
    "task": ("r.task", "r.task"),
    "model": ("t.model", "t.model"),
    "owner": ("r.owner", "r.owner"),
    "dataset": ("r.dataset_id", "min(d.name)"),
    "account": ("t.account_id", "coalesce(min(a.organization_id), min(a.base_url))"),
    "run": ("t.run_id", "min(r.task)"),
}
IN_TIME = ("day", "month")  # told in the order of time, all others by what they cost


@dataclass(frozen=True, slots=True)
class Scope:
    """Which answers: of the days (UTC) from one until another, both among them, of some kind only where it is said.

    :param sandbox: those of sandbox accounts, whose prices nobody pays; else those that were paid for.
    """

    since: date
    until: date
    sandbox: bool = False
    task: str | None = None
    model: str | None = None
    owner: str | None = None
    dataset: int | None = None
    account: int | None = None

    @property
    def binds(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self)}


_SCOPE = """
    FROM ledger_tallies t LEFT JOIN runs r ON r.id = t.run_id LEFT JOIN accounts a ON a.id = t.account_id
    LEFT JOIN datasets d ON d.id = r.dataset_id
    WHERE t.day BETWEEN :since AND :until AND coalesce(a.sandbox, false) = :sandbox
      AND (CAST(:task AS text) IS NULL OR r.task = :task) AND (CAST(:model AS text) IS NULL OR t.model = :model)
      AND (CAST(:owner AS text) IS NULL OR r.owner = :owner)
      AND (CAST(:dataset AS bigint) IS NULL OR r.dataset_id = :dataset)
      AND (CAST(:account AS bigint) IS NULL OR t.account_id = :account)
"""


class Spent(NamedTuple):
    """What answers came to: sums of what is priced, and how many answers are not (they are in no sum).

    :param key: of the part; None where nothing is told apart, or for what has none.
    :param duplicates: second paid answers to the same request; what they cost is in `cost_usd`, and nothing else.
    :param sync_usd: what the same would have cost synchronously, asked once each.
    :param uncached_usd: likewise, had every token of the prompts been paid at the full rate.
    :param uncached_unknown: answers of earlier versions that used a cache; they stand in `uncached_usd` as if not.
    """

    key: Any
    name: str | None
    answers: int
    unpriced: int
    duplicates: int
    uncached_unknown: int
    cost_usd: Decimal
    duplicate_usd: Decimal
    sync_usd: Decimal
    uncached_usd: Decimal

    @property
    def by_batching(self) -> Decimal:
        """What the same would have cost more synchronously, duplicates apart."""
        return self.sync_usd - (self.cost_usd - self.duplicate_usd)

    @property
    def by_caching(self) -> Decimal:
        """What the same would have cost more without a cache, synchronously; less than nothing where what was written
        was not read enough. With `by_batching` and what was spent on it, it adds up to `uncached_usd`.
        """
        return self.uncached_usd - self.sync_usd

    @property
    def all_unpriced(self) -> bool:
        """Whether no price is known at all."""
        return self.unpriced == self.answers > 0


NOTHING = Spent(None, None, 0, 0, 0, 0, Decimal(), Decimal(), Decimal(), Decimal())
_SUMS = """
    CAST(coalesce(sum(t.lines), 0) AS bigint), CAST(coalesce(sum(t.unpriced), 0) AS bigint),
    CAST(coalesce(sum(t.duplicates), 0) AS bigint), CAST(coalesce(sum(t.uncached_unknown), 0) AS bigint),
    coalesce(sum(t.cost_usd), 0) AS cost, coalesce(sum(t.duplicate_cost_usd), 0),
    coalesce(sum(t.sync_cost_usd), 0), coalesce(sum(t.uncached_cost_usd), 0)
"""


def total(tx: Connection, scope: Scope) -> Spent:
    """All of it."""
    return Spent(*db.row(tx, f"SELECT NULL, NULL, {_SUMS} {_SCOPE}", **scope.binds))


def parts(tx: Connection, scope: Scope, by: str) -> list[Spent]:
    """The same by one of `PARTS`: in the order of time, or the dearest first, at most `MOST_PARTS`; one more where
    there are more.
    """
    key, name = PARTS[by]
    order, most = ("1 DESC", MOST_DAYS) if by in IN_TIME else ("cost DESC, 1", MOST_PARTS)
    found = db.rows(
        tx,
        f"SELECT {key}, {name}, {_SUMS} {_SCOPE} GROUP BY {key} ORDER BY {order} LIMIT :most",
        most=most + 1,
        **scope.binds,
    )
    return [Spent(*line) for line in found]


# -- what an invoice tells -----------------------------------------------------------------------------------------


class Charge(NamedTuple):
    """Tokens of one class (or web searches) of one day, account, model, geography and price, and what they cost.

    :param token_class: `all`, with the number of answers, where a cost cannot be split by class: it was reckoned by an
        earlier version, or by a price that is no longer known. The classes then stand without a cost.
    :param rate_usd: for a million of them in a batch; None: not known.
    :param cost_usd: unrounded; None: unpriced.
    """

    day: date
    account: int
    organization: str | None
    workspace: str | None
    sandbox: bool
    model: str | None
    inference_geo: str | None
    price: str | None
    token_class: str
    quantity: int
    rate_usd: Decimal | None
    cost_usd: Decimal | None


CLASSES = ("input", "write_5m", "write_1h", "read", "output")
SEARCHES = "web_search"


def charges(tx: Connection, prices: PriceBook, scope: Scope, day: date) -> Iterator[Charge]:
    """All charges of a day of the period, duplicates among them. What they cost adds up to what the day cost."""
    found = db.rows(
        tx,
        f"""
        SELECT t.day, t.account_id, min(a.organization_id), min(a.workspace_id), bool_or(coalesce(a.sandbox, false)),
               t.model, t.inference_geo, t.price, CAST(sum(t.unpriced) AS bigint) AS unpriced,
               CAST(sum(t.lines) AS bigint) AS lines, sum(t.cost_usd) AS cost,
               {", ".join(f"CAST(sum(t.{name}_tokens) AS bigint) AS {name}" for name in CLASSES)},
               CAST(sum(t.web_searches) AS bigint) AS web_searches
        {_SCOPE} GROUP BY 1, 2, t.model, t.inference_geo, t.price ORDER BY 2, t.model, t.inference_geo, t.price
        """,
        **scope.binds | {"since": max(day, scope.since), "until": min(day, scope.until)},
    )
    for line in found:
        yield from _charges(prices, tuple(line[:8]), line)


def _charges(prices: PriceBook, head: tuple[Any, ...], line: Any) -> Iterator[Charge]:
    """The charges of what was priced alike."""

    def charge(token_class: str, quantity: int, rate: Decimal | None = None, cost: Decimal | None = None) -> Charge:
        return Charge._make((*head, token_class, quantity, rate, cost))

    quantities = {name: getattr(line, name) for name in CLASSES} | {SEARCHES: line.web_searches}
    used = {name: count for name, count in quantities.items() if count}
    rates = _rates(prices, line)
    costs = {name: used[name] * rate / MILLION for name, rate in rates.items() if name in used}
    if rates and not line.unpriced and sum(costs.values()) == line.cost:
        yield from (charge(name, count, rates[name], costs[name]) for name, count in used.items())
        return
    yield from (charge(name, count) for name, count in used.items())
    if line.unpriced < line.lines:
        yield charge("all", line.lines - line.unpriced, None, line.cost)


def _rates(prices: PriceBook, line: Any) -> dict[str, Decimal]:
    """By class, USD for a million in a batch; nothing where the price is not known."""
    rates = _priced_by(prices, line)
    if rates is None:
        return {}
    factors = factors_of(line.inference_geo)
    times = factors.sync * factors.batch
    fee = factors.web_search * MILLION
    return {name: getattr(rates, name) * times for name in CLASSES} | {SEARCHES: fee}


def _priced_by(prices: PriceBook, line: Any) -> Rates | None:
    """The rates that lines name; where they were made by an earlier version, the shipped ones of their day, which the
    sum then proves or disproves.
    """
    if line.model is None:
        return None
    if line.price is not None:
        return prices.named(line.model, line.price)
    past = [price for price in prices.of(line.model) if price.override is None and price.since <= line.day]
    return past[-1].rates if past else None


def days(scope: Scope) -> Iterator[date]:
    """Each day of the period, the first one first."""
    for ahead in range((scope.until - scope.since).days + 1):
        yield scope.since + timedelta(days=ahead)
