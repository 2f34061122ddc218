"""The ledger: one line per billed answer, appended inside the ingest transaction, never changed.
Ingestion makes bills and lines of them and writes these with `append`; pages and the command line ask for totals, which
come from tallies of the lines, so that a run's millions of lines are never read for its cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from sqlalchemy import DDL, Connection, Identity, Index, Integer, UniqueConstraint, event, func, text
from sqlalchemy.orm import Mapped, mapped_column

from webapp import db
from webapp.db import Base
from webapp.money.prices import SHIPPED, PriceBook, Usage


class LedgerLine(Base):
    """One billed answer. NULL cost means unpriced: unknown, not free."""

    __tablename__ = "ledger_lines"
    __table_args__ = (
        # A billed answer is this, wherever and however often it is read.
        UniqueConstraint("api_batch_id", "custom_id"),
        Index(None, "run_id"),
        # A second paid answer stands under another batch of the API than its request's own.
        Index("ix_ledger_lines_duplicates", "request_id", postgresql_where=text("duplicate")),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    api_batch_id: Mapped[str]
    custom_id: Mapped[str]
    account_id: Mapped[int]
    run_id: Mapped[int]
    request_id: Mapped[int]
    model: Mapped[str | None]
    input_tokens: Mapped[int | None] = mapped_column(Integer)
    write_5m_tokens: Mapped[int | None] = mapped_column(Integer)
    write_1h_tokens: Mapped[int | None] = mapped_column(Integer)
    read_tokens: Mapped[int | None] = mapped_column(Integer)
    output_tokens: Mapped[int | None] = mapped_column(Integer)
    web_searches: Mapped[int | None] = mapped_column(Integer)
    inference_geo: Mapped[str | None]
    cost_usd: Mapped[Decimal | None]
    sync_cost_usd: Mapped[Decimal | None]
    # Synchronously and without any cache. NULL where nothing was priced, or by an earlier version.
    uncached_cost_usd: Mapped[Decimal | None]
    # What it was priced by, as `prices.PriceBook.named` takes it. NULL likewise.
    price: Mapped[str | None]
    duplicate: Mapped[bool] = mapped_column(server_default="false")
    priced_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class LedgerTally(Base):
    """What one chunk of ledger lines came to, by run, batch, account, model, day, price and geography; appended, never
    changed.

    Costs are sums of what is priced; the lines that are not are counted beside them. The synchronous costs are without
    duplicates: nobody would have asked a second time. `uncached_unknown` counts the lines of an earlier version whose
    cost without a cache nobody has reckoned; in the sum they stand with their synchronous cost.
    """

    __tablename__ = "ledger_tallies"
    __table_args__ = (Index(None, "run_id"), Index(None, "api_batch_id"), Index(None, "day"))

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    run_id: Mapped[int]
    api_batch_id: Mapped[str]
    account_id: Mapped[int]
    model: Mapped[str | None]
    day: Mapped[date]  # in UTC, of the price
    lines: Mapped[int]
    unpriced: Mapped[int]
    sync_unpriced: Mapped[int]
    duplicates: Mapped[int]
    cost_usd: Mapped[Decimal]
    sync_cost_usd: Mapped[Decimal]
    uncached_cost_usd: Mapped[Decimal] = mapped_column(server_default="0")
    uncached_unknown: Mapped[int] = mapped_column(server_default="0")
    duplicate_cost_usd: Mapped[Decimal] = mapped_column(server_default="0")
    price: Mapped[str | None]
    inference_geo: Mapped[str | None]
    input_tokens: Mapped[int]
    write_5m_tokens: Mapped[int]
    write_1h_tokens: Mapped[int]
    read_tokens: Mapped[int]
    output_tokens: Mapped[int]
    web_searches: Mapped[int]
    at: Mapped[datetime] = mapped_column(server_default=func.now())


# The database itself makes the tallies of whatever is appended, in the same transaction: they are those of the lines
# also where a worker of an earlier version, which knows no tallies, is the one that appends.
TALLY = DDL(  # type: ignore[no-untyped-call]
    """
    CREATE FUNCTION tally_ledger_lines() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO ledger_tallies (run_id, api_batch_id, account_id, model, day, price, inference_geo, lines, unpriced,
            sync_unpriced, duplicates, cost_usd, sync_cost_usd, uncached_cost_usd, uncached_unknown,
            duplicate_cost_usd, input_tokens, write_5m_tokens, write_1h_tokens, read_tokens, output_tokens,
            web_searches)
        SELECT run_id, api_batch_id, account_id, model, CAST(priced_at AT TIME ZONE 'UTC' AS date), price,
            inference_geo, count(*), count(*) - count(cost_usd), count(*) - count(sync_cost_usd),
            count(*) FILTER (WHERE duplicate), coalesce(sum(cost_usd), 0),
            coalesce(sum(sync_cost_usd) FILTER (WHERE NOT duplicate), 0),
            coalesce(sum(coalesce(uncached_cost_usd, sync_cost_usd)) FILTER (WHERE NOT duplicate), 0),
            count(sync_cost_usd) FILTER (WHERE NOT duplicate AND uncached_cost_usd IS NULL
                AND write_5m_tokens + write_1h_tokens + read_tokens > 0),
            coalesce(sum(cost_usd) FILTER (WHERE duplicate), 0),
            coalesce(sum(input_tokens), 0), coalesce(sum(write_5m_tokens), 0), coalesce(sum(write_1h_tokens), 0),
            coalesce(sum(read_tokens), 0), coalesce(sum(output_tokens), 0), coalesce(sum(web_searches), 0)
        FROM appended GROUP BY 1, 2, 3, 4, 5, 6, 7;
        RETURN NULL;
    END $$;
    CREATE TRIGGER tally_ledger_lines AFTER INSERT ON ledger_lines REFERENCING NEW TABLE AS appended
        FOR EACH STATEMENT EXECUTE FUNCTION tally_ledger_lines()
    """
)
event.listen(Base.metadata, "after_create", TALLY)


COLUMNS = (
    "request_id",
    "duplicate",
    "api_batch_id",
    "custom_id",
    "account_id",
    "run_id",
    "model",
    "input_tokens",
    "write_5m_tokens",
    "write_1h_tokens",
    "read_tokens",
    "output_tokens",
    "web_searches",
    "inference_geo",
    "cost_usd",
    "sync_cost_usd",
    "uncached_cost_usd",
    "price",
    "priced_at",
)


MAX_NAME = 200  # characters; what is longer, or cannot be printed, is no model's name


@dataclass(frozen=True, slots=True)
class Billed:
    """Where an answer was billed: the same for every line of one batch."""

    api_batch_id: str
    account_id: int
    run_id: int
    created_at: datetime  # the API's own time of creation: prices are of that day
    prices: PriceBook = SHIPPED


Bill = tuple[Any, ...]  # a ledger line but for the request it belongs to, in the order of `COLUMNS` from the third on


def bill(billed: Billed, custom_id: str, message: Any) -> Bill:
    """What a succeeded answer cost.

    :param message: the answer's Message as parsed JSON, however odd.
    """
    head = (billed.api_batch_id, custom_id, billed.account_id, billed.run_id)
    priced_at = _written(billed.created_at)
    model = message.get("model")
    model = model if isinstance(model, str) and len(model) <= MAX_NAME and model.isprintable() else None
    usage = Usage.parse(message.get("usage"))
    if usage is None:
        return (*head, model, *(None,) * 11, priced_at)
    refused = message.get("stop_reason") == "refusal" and not usage.output
    price = billed.prices.cost(model, usage, billed.created_at, refused=refused) if model else None
    return (*head, model, *usage, *(price or (None,) * 4), priced_at)


@lru_cache(maxsize=16)
def _written(moment: datetime) -> str:
    """A time as COPY takes it; psycopg takes ten times as long over the same, and a batch has but one."""
    return moment.isoformat()


def line(bill: Bill, request_id: int, *, duplicate: bool) -> tuple[Any, ...]:
    """One ledger line, in the order of `COLUMNS`."""
    return (request_id, duplicate, *bill)


def append(tx: Connection, lines: Iterable[tuple[Any, ...]]) -> None:
    """COPY new lines into the ledger; the caller holds the batch and has left out known ones."""
    db.copy_rows(tx, "ledger_lines", COLUMNS, lines)


def known(tx: Connection, api_batch_id: str, custom_ids: Sequence[str]) -> set[str]:
    """Which of these answers of one batch of the API are in the ledger already."""
    found = db.rows(
        tx,
        "SELECT custom_id FROM ledger_lines WHERE api_batch_id = :batch AND custom_id = ANY(:ids)",
        batch=api_batch_id,
        ids=list(custom_ids),
    )
    return {custom_id for (custom_id,) in found}


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over ledger lines; a sum that holds an unpriced line is None.

    :param uncached_cost_usd: the synchronous cost without any cache; None also where an earlier version left it open.
    """

    cost_usd: Decimal | None
    sync_cost_usd: Decimal | None
    lines: int
    uncached_cost_usd: Decimal | None = field(default=None, compare=False)

    @property
    def saved_by_batching(self) -> Decimal | None:
        """What the same would have cost more synchronously; less than nothing where it was paid twice."""
        return None if self.cost_usd is None or self.sync_cost_usd is None else self.sync_cost_usd - self.cost_usd

    @property
    def saved_by_caching(self) -> Decimal | None:
        """What the same would have cost more without a cache, synchronously; less than nothing where it cost less."""
        known = self.uncached_cost_usd is not None and self.sync_cost_usd is not None
        return self.uncached_cost_usd - self.sync_cost_usd if known else None  # type: ignore[operator]


_TOTALS = """
    CASE WHEN coalesce(sum(unpriced), 0) = 0 THEN coalesce(sum(cost_usd), 0) END AS cost,
    CASE WHEN coalesce(sum(sync_unpriced), 0) = 0 THEN coalesce(sum(sync_cost_usd), 0) END AS sync,
    CASE WHEN coalesce(sum(sync_unpriced + uncached_unknown), 0) = 0 THEN coalesce(sum(uncached_cost_usd), 0) END
        AS uncached,
    CAST(coalesce(sum(lines), 0) AS bigint) AS lines
"""


def run_totals(tx: Connection, run_id: int) -> Totals:
    """What a run cost over all its attempts, and what the same would have cost synchronously."""
    found = db.row(tx, f"SELECT {_TOTALS} FROM ledger_tallies WHERE run_id = :id", id=run_id)  # noqa: S608 - a constant
    return Totals(found.cost, found.sync, found.lines, found.uncached)


def totals_of_runs(tx: Connection, run_ids: Sequence[int]) -> dict[int, Totals]:
    """The same by run; those without a billed answer are left out."""
    found = db.rows(
        tx,
        f"SELECT run_id, {_TOTALS} FROM ledger_tallies WHERE run_id = ANY(:ids) GROUP BY run_id",  # noqa: S608 - likewise
        ids=list(run_ids),
    )
    return {line.run_id: Totals(line.cost, line.sync, line.lines, line.uncached) for line in found}


def totals_of_batches(tx: Connection, api_ids: Sequence[str]) -> dict[str, Totals]:
    """The same by batch, as the API names it; those without a billed answer are left out."""
    found = db.rows(
        tx,
        f"SELECT api_batch_id, {_TOTALS} FROM ledger_tallies WHERE api_batch_id = ANY(:ids) GROUP BY api_batch_id",  # noqa: S608 - likewise
        ids=list(api_ids),
    )
    return {line.api_batch_id: Totals(line.cost, line.sync, line.lines, line.uncached) for line in found}


@dataclass(frozen=True, slots=True)
class Day:
    """What was billed on one day, in UTC: sums of what is priced, and how many lines are not (rule 11)."""

    day: date
    cost_usd: Decimal
    sync_cost_usd: Decimal
    unpriced: int
    lines: int


def spend_by_day(tx: Connection, days: int, *, sandbox: bool = False) -> list[Day]:
    """What was spent on each of the last `days` days (today is one) that anything was billed on, oldest first.

    :param sandbox: the made-up prices of sandbox accounts instead, which never count as spend.
    """
    found = db.rows(
        tx,
        """
        SELECT t.day, sum(t.cost_usd) AS cost, sum(t.sync_cost_usd) AS sync,
               CAST(sum(greatest(t.unpriced, t.sync_unpriced)) AS bigint) AS unpriced,
               CAST(sum(t.lines) AS bigint) AS lines
        FROM ledger_tallies t
        WHERE t.day > CAST(now() AT TIME ZONE 'UTC' AS date) - CAST(:days AS int)
          AND EXISTS (SELECT 1 FROM accounts a WHERE a.id = t.account_id AND a.sandbox) = :sandbox
        GROUP BY t.day ORDER BY t.day
        """,
        days=days,
        sandbox=sandbox,
    )
    return [Day(line.day, line.cost, line.sync, line.unpriced, line.lines) for line in found]


def attempt_totals(tx: Connection, item_id: int) -> dict[int, Totals]:
    """By attempt, what each request of an item cost, paid twice or once; those without a billed answer are left out."""
    found = db.rows(
        tx,
        """
        SELECT r.attempt, CASE WHEN count(*) = count(l.cost_usd) THEN sum(l.cost_usd) END AS cost,
               CASE WHEN count(*) = count(l.sync_cost_usd)
                    THEN coalesce(sum(l.sync_cost_usd) FILTER (WHERE NOT l.duplicate), 0) END AS sync,
               CASE WHEN count(*) = count(l.uncached_cost_usd)
                    THEN coalesce(sum(l.uncached_cost_usd) FILTER (WHERE NOT l.duplicate), 0) END AS uncached,
               count(*) AS lines
        FROM requests r JOIN batches b ON b.id = r.batch_id CROSS JOIN LATERAL (
            SELECT cost_usd, sync_cost_usd, uncached_cost_usd, duplicate FROM ledger_lines
            WHERE api_batch_id = b.api_id AND custom_id = r.custom_id AND NOT duplicate
            UNION ALL
            SELECT cost_usd, sync_cost_usd, uncached_cost_usd, duplicate FROM ledger_lines
            WHERE request_id = r.id AND duplicate
        ) AS l
        WHERE r.item_id = :item GROUP BY r.attempt
        """,
        item=item_id,
    )
    return {line.attempt: Totals(line.cost, line.sync, line.lines, line.uncached) for line in found}


def total(parts: Iterable[Totals]) -> Totals:
    """The sum of several; unpriced if one of them is."""
    listed = list(parts)
    cost_usd = [part.cost_usd for part in listed if part.cost_usd is not None]
    sync_usd = [part.sync_cost_usd for part in listed if part.sync_cost_usd is not None]
    return Totals(
        sum(cost_usd, Decimal()) if len(cost_usd) == len(listed) else None,
        sum(sync_usd, Decimal()) if len(sync_usd) == len(listed) else None,
        sum(part.lines for part in listed),
    )
