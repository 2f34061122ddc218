"""Prices as data and the cost of one answer, exact and unrounded: the shipped table (`prices.toml`), and what admins
have put in its place (`webapp.money.overrides`), as one book. Nothing here touches the database.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache, lru_cache
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

MILLION = Decimal(1_000_000)
NOTHING = Decimal()
MAX_COUNT = 2**31 - 1  # what a column of the ledger holds; nothing real comes near it
DATED = re.compile(r"-\d{8}$")  # claude-haiku-4-5-20251001 is claude-haiku-4-5 of one day
OVER, REFUSED = " over", " refused"  # what follows the name of a price where its higher tier, or none, was paid


class Usage(NamedTuple):
    """Tokens of one answer by the classes that are priced apart, as the API reports them."""

    input: int
    write_5m: int
    write_1h: int
    read: int
    output: int
    web_searches: int
    geo: str | None

    @classmethod
    def parse(cls, usage: Any) -> Usage | None:
        """From a message's `usage`; None when it lacks a count that a price needs, or holds one that is none."""
        if type(usage) is not dict or usage.get("input_tokens") is None or usage.get("output_tokens") is None:
            return None
        try:
            split = _part(usage.get("cache_creation"))
            written = _count(usage.get("cache_creation_input_tokens"))
            write_1h = _count(split.get("ephemeral_1h_input_tokens"))
            return cls(
                _count(usage["input_tokens"]),
                # Writes that the split does not place are of the default kind.
                max(_count(split.get("ephemeral_5m_input_tokens")), written - write_1h),
                write_1h,
                _count(usage.get("cache_read_input_tokens")),
                _count(usage["output_tokens"]),
                _count(_part(usage.get("server_tool_use")).get("web_search_requests")),
                _name(usage.get("inference_geo")),
            )
        except (TypeError, ValueError):
            return None

    @property
    def prompt(self) -> int:
        """Tokens of the whole prompt, cached or not: what decides the tier."""
        return self.input + self.write_5m + self.write_1h + self.read


class Cost(NamedTuple):
    """What an answer cost in its batch; what it would have cost synchronously; and that without any cache, every token
    of the prompt at the full rate: in USD, unrounded. `price` names what it was priced by, as `PriceBook.named` takes.
    """

    batch: Decimal
    sync: Decimal
    uncached: Decimal
    price: str


@dataclass(frozen=True, slots=True)
class Rates:
    """Synchronous USD of each class: for a million tokens, or (`per_token`) for one."""

    input: Decimal
    write_5m: Decimal
    write_1h: Decimal
    read: Decimal
    output: Decimal

    @classmethod
    def parse(cls, entry: Mapping[str, Any]) -> Rates:
        """From an entry of the price table, or its `over`."""
        return cls(**{each.name: Decimal(entry[each.name]) for each in fields(cls)})

    def per_token(self, factor: Decimal) -> Rates:
        """Rates for a million as those for one token, where everything is multiplied with a factor; exact."""
        return Rates(*(getattr(self, each.name) * factor / MILLION for each in fields(self)))

    def of(self, usage: Usage) -> Decimal:
        """USD for the tokens of one answer, by rates per token. Asked for each answer, most of which write nothing."""
        usd = usage.input * self.input + usage.output * self.output
        if usage.read:
            usd += usage.read * self.read
        if usage.write_5m or usage.write_1h:
            usd += usage.write_5m * self.write_5m + usage.write_1h * self.write_1h
        return usd

    def uncached(self, prompt: int, output: int) -> Decimal:
        """The same had nothing been written to a cache or read from one."""
        return prompt * self.input + output * self.output


FREE = Rates(NOTHING, NOTHING, NOTHING, NOTHING, NOTHING)


@dataclass(frozen=True, slots=True)
class Price:
    """What one model costs from one day on, numbers already read: it is asked for each answer of a batch.

    :param name: of this price among those of its model.
    :param override: the id of an admin's price; None: it is a shipped one.
    """

    name: str
    since: date
    override: int | None
    rates: Rates
    most_tokens: float  # of a prompt at these rates; one with more pays `over` for every token
    over: Rates
    free_refusals: bool

    @classmethod
    def parse(cls, model: str, name: str, since: date, override: int | None, entry: Mapping[str, Any]) -> Price:
        """From an entry of the price table, or one of the same form."""
        over = entry.get("over")
        return cls(
            name=name,
            since=since,
            override=override,
            rates=Rates.parse(entry),
            most_tokens=over["tokens"] if over else inf,
            over=Rates.parse(over or entry),
            free_refusals=bool(_shipped(model).get("free_refusals")),
        )

    @property
    def tiers(self) -> list[tuple[str, Rates]]:
        """All that a ledger line may be priced by, by name."""
        both = [(self.name, self.rates), (self.name + OVER, self.over)] if self.most_tokens < inf else []
        return (both or [(self.name, self.rates)]) + ([(self.name + REFUSED, FREE)] if self.free_refusals else [])


@dataclass(frozen=True, slots=True)
class Override:
    """A price that an admin gave, in force from a day (UTC) on unless it was removed."""

    id: int
    model: str
    since: date
    entry: str  # JSON, in the form of the table's entries
    removed: bool


@dataclass(frozen=True, eq=False)
class PriceBook:
    """All prices there are. An admin's price counts before any shipped one of the model, from its day on."""

    overrides: tuple[tuple[Override, Price], ...] = ()

    def price(self, model: str, at: datetime) -> Price | None:
        """What a model costs on a day (UTC); None: nobody knows."""
        return _price(self, model, at)

    def cost(self, model: str, usage: Usage, at: datetime, *, refused: bool = False) -> Cost | None:
        """The cost of one answer by the price of the day the batch was created; None: unpriced.

        :param refused: it is a refusal, given before any output.
        """
        tariff = _tariff(self, model, at, usage.geo)
        if tariff is None:
            return None
        if refused and tariff.free_refusals:
            return Cost(NOTHING, NOTHING, NOTHING, tariff.name + REFUSED)
        prompt = usage.prompt
        low = prompt <= tariff.most_tokens
        rates = tariff.rates if low else tariff.over
        sync = rates.of(usage)
        uncached = sync if prompt == usage.input else rates.uncached(prompt, usage.output)
        batch = sync * tariff.batch
        fees = usage.web_searches and usage.web_searches * tariff.web_search
        name = tariff.name if low else tariff.name + OVER
        return Cost(batch + fees, sync + fees, uncached + fees, name) if fees else Cost(batch, sync, uncached, name)

    def priced(self, model: str, at: datetime) -> bool:
        """Whether answers of a model have a price on that day."""
        return _price(self, model, at) is not None

    def named(self, model: str, name: str) -> Rates | None:
        """The synchronous rates of a price that a ledger line names, also of one that is no longer in force."""
        return next((rates for price in self.of(model) for tier, rates in price.tiers if tier == name), None)

    def of(self, model: str) -> Iterator[Price]:
        """Every price that a model has or had, shipped ones first, each kind by its day."""
        yield from _shipped_prices(_plain(model))
        yield from (price for override, price in self.overrides if override.model == _plain(model))

    @property
    def models(self) -> list[str]:
        """Every model that the shipped table knows of or an admin gave a price, by name."""
        return sorted({*price_table()["models"], *(override.model for override, _ in self.overrides)})


SHIPPED = PriceBook()


class Factors(NamedTuple):
    """What the synchronous rates of a place are multiplied with, and what a web search costs on top of them."""

    sync: Decimal
    batch: Decimal
    web_search: Decimal


@lru_cache(maxsize=64)
def factors_of(geo: str | None) -> Factors:
    """By what the API says of where an answer was made."""
    table = price_table()
    return Factors(
        Decimal(table["us_geo_factor"]) if geo == "us" else Decimal(1),
        Decimal(table["batch_factor"]),
        Decimal(table["web_search_per_request"]),
    )


class Tariff(NamedTuple):
    """A price as it is for answers made in one place, reckoned once for a batch: its rates are per token."""

    name: str
    rates: Rates
    most_tokens: float
    over: Rates
    free_refusals: bool
    batch: Decimal
    web_search: Decimal


@lru_cache(maxsize=256)
def _tariff(book: PriceBook, model: str, at: datetime, geo: str | None) -> Tariff | None:
    price = _price(book, model, at)
    if price is None:
        return None
    factors = factors_of(geo)
    return Tariff(
        price.name,
        price.rates.per_token(factors.sync),
        price.most_tokens,
        price.over.per_token(factors.sync),
        price.free_refusals,
        factors.batch,
        factors.web_search,
    )


@cache
def price_table() -> dict[str, Any]:
    """The shipped price table, read once per process."""
    return tomllib.loads(Path(__file__).with_name("prices.toml").read_text("utf-8"))


def min_cacheable(model: str) -> int | None:
    """The tokens that a prefix must have to be cached at all; None: nobody knows."""
    found: int | None = _shipped(model).get("min_cacheable")
    return found


def _plain(model: str) -> str:
    return DATED.sub("", model)


def _shipped(model: str) -> dict[str, Any]:
    return dict(price_table()["models"].get(_plain(model), {}))


@cache
def _all_shipped() -> dict[str, tuple[Price, ...]]:
    return {
        model: tuple(Price.parse(model, f"{entry['from']}", entry["from"], None, entry) for entry in known["prices"])
        for model, known in price_table()["models"].items()
    }


def _shipped_prices(model: str) -> tuple[Price, ...]:
    return _all_shipped().get(model, ())


@lru_cache(maxsize=256)
def _price(book: PriceBook, model: str, at: datetime) -> Price | None:
    plain, day = _plain(model), at.astimezone(UTC).date()
    given = [
        price
        for override, price in book.overrides
        if override.model == plain and not override.removed and override.since <= day
    ]
    if given:
        return max(given, key=lambda price: (price.since, price.override))
    past = [price for price in _shipped_prices(plain) if price.since <= day]
    return past[-1] if past else None


def _part(part: Any) -> dict[str, Any]:
    """An object within the usage; absent and null are empty."""
    if part is not None and type(part) is not dict:
        raise TypeError(f"{part} is no object")
    return part or {}


def _count(value: Any) -> int:
    """A count within the usage; absent and null are nothing."""
    if type(value) is int and 0 <= value <= MAX_COUNT:
        return value
    if value is not None:
        raise ValueError(f"{value} is no count")
    return 0


def _name(value: Any) -> str | None:
    return value if isinstance(value, str) and value.isprintable() else None
