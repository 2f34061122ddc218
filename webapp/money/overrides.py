"""The prices that admins give, beside the shipped ones or in their place: from a day (UTC) on, each with a note.
The Prices page changes them; steps and pages take all prices as one book. What a line of the ledger was priced by
stays known: a price is never changed, only removed, or followed by another of the same day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from sqlalchemy import JSON, Connection, Identity, func
from sqlalchemy.orm import Mapped, mapped_column

from webapp import db
from webapp.batches.books import note
from webapp.db import Base
from webapp.errors import NotFound, Refused
from webapp.money.prices import DATED, Override, Price, PriceBook
from webapp.records import jsontext

TARGET = "price"  # of events


class PriceOverride(Base):
    """A model's price from a day on, as an admin gave it."""

    __tablename__ = "price_overrides"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    model: Mapped[str]  # without the date that a model's own id ends with
    since: Mapped[date]
    entry: Mapped[Any] = mapped_column(JSON)  # as of `prices.toml`, every amount a text
    note: Mapped[str]
    created_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    removed_by: Mapped[str | None]
    removed_at: Mapped[datetime | None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A price as an admin gives it.

    :param entry: in the form of the shipped table's entries: USD per million tokens by class, `over` for a tier.
    :param note: where it is from, for those who look at it later.
    """

    model: str
    since: date
    entry: Mapping[str, Any]
    note: str


def book(tx: Connection) -> PriceBook:
    """All prices as they are now. One small query; a step asks once for all that it prices."""
    found = db.rows(
        tx, "SELECT id, model, since, entry::text AS entry, removed_at IS NOT NULL FROM price_overrides ORDER BY id"
    )
    return _book(tuple(Override(*line) for line in found))


@lru_cache(maxsize=8)
def _book(overrides: tuple[Override, ...]) -> PriceBook:
    """Made once per process for the same prices, with all that it remembers."""
    return PriceBook(
        tuple(
            (one, Price.parse(one.model, f"override {one.id}", one.since, one.id, jsontext.loads(one.entry)))
            for one in overrides
        )
    )


def add(tx: Connection, wanted: Wanted, *, actor: str) -> int:
    """Put a price in force; its id. Lines of the ledger that there are stay what they are.

    :raises Refused: just that price is in force already.
    """
    model = DATED.sub("", wanted.model)
    # One after the other, so that a form that is sent twice makes one price.
    db.run(tx, "SELECT pg_advisory_xact_lock(hashtextextended('price ' || :model, 0))", model=model)
    entry = jsontext.dumps(wanted.entry).decode()
    known = db.scalar(
        tx,
        "SELECT id FROM price_overrides WHERE model = :model AND since = :since AND entry::text = :entry "
        "AND removed_at IS NULL AND id = (SELECT max(id) FROM price_overrides WHERE model = :model "
        "AND since = :since AND removed_at IS NULL)",
        model=model,
        since=wanted.since,
        entry=entry,
    )
    if known is not None:
        raise Refused(f"{model} has this price from {wanted.since} on already.")
    override_id: int = db.scalar(
        tx,
        "INSERT INTO price_overrides (model, since, entry, note, created_by) "
        "VALUES (:model, :since, CAST(:entry AS json), :note, :actor) RETURNING id",
        model=model,
        since=wanted.since,
        entry=entry,
        note=wanted.note,
        actor=actor,
    )
    _tell(tx, model, f"Price {override_id} from {wanted.since}: {in_words(wanted.entry)}. {wanted.note}", actor)
    return override_id


def remove(tx: Connection, override_id: int, *, actor: str) -> str:
    """Take a price out of force: what is billed from now on is priced as if it had never been. Its model.

    :raises NotFound: there is no such price.
    :raises Refused: it is removed already.
    """
    found = db.row(
        tx,
        "UPDATE price_overrides SET removed_at = now(), removed_by = :actor WHERE id = :id AND removed_at IS NULL "
        "RETURNING model, since, entry::text AS entry",
        id=override_id,
        actor=actor,
    )
    if found is None:
        if db.scalar(tx, "SELECT id FROM price_overrides WHERE id = :id", id=override_id) is None:
            raise NotFound(f"There is no price {override_id}.")
        raise Refused(f"Price {override_id} is removed already.")
    words = f"Price {override_id} from {found.since} removed: {in_words(jsontext.loads(found.entry))}."
    _tell(tx, found.model, words, actor)
    return str(found.model)


def in_words(entry: Mapping[str, Any]) -> str:
    """An entry as a sentence's part: USD per million tokens."""
    words = (
        f"${entry['input']} in, ${entry['output']} out, ${entry['write_5m']} and ${entry['write_1h']} cache writes, "
        f"${entry['read']} cache reads"
    )
    over = entry.get("over")
    return f"{words}; beyond {over['tokens']:,} tokens {in_words(over)}" if over else words


def multiplied(rate: Decimal, factor: str) -> str:
    """A rate that is so many times another, written without needless digits."""
    return f"{(rate * Decimal(factor)).normalize():f}"


def _tell(tx: Connection, model: str, reason: str, actor: str) -> None:
    note(tx, run_id=None, target=(TARGET, model), actor=actor, reason=reason, kind="price")
