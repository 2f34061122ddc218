"""Prices as data (`prices.toml`) and the cost of one answer, exact and unrounded.
The ledger prices each billed answer with `cost`; nothing here touches the database.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache, lru_cache
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

MILLION = Decimal(1_000_000)
MAX_COUNT = 2**31 - 1  # what a column of the ledger holds; nothing real comes near it
DATED = re.compile(r"-\d{8}$")  # claude-haiku-4-5-20251001 is claude-haiku-4-5 of one day


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
        try:
            split = _part(usage, "cache_creation")
            written = _count(usage, "cache_creation_input_tokens")
            write_1h = _count(split, "ephemeral_1h_input_tokens")
            return cls(
                input=_count(usage, "input_tokens", required=True),
                # Writes that the split does not place are of the default kind.
                write_5m=max(_count(split, "ephemeral_5m_input_tokens"), written - write_1h),
                write_1h=write_1h,
                read=_count(usage, "cache_read_input_tokens"),
                output=_count(usage, "output_tokens", required=True),
                web_searches=_count(_part(usage, "server_tool_use"), "web_search_requests"),
                geo=_name(usage.get("inference_geo")),
            )
        except (TypeError, ValueError):
            return None

    @property
    def prompt(self) -> int:
        """Tokens of the whole prompt, cached or not: what decides the tier."""
        return self.input + self.write_5m + self.write_1h + self.read


class Cost(NamedTuple):
    """What an answer cost in its batch, and what it would have cost synchronously, in USD, unrounded."""

    batch: Decimal
    sync: Decimal


@dataclass(frozen=True, slots=True)
class Rates:
    """Synchronous USD per million tokens of each class."""

    input: Decimal
    write_5m: Decimal
    write_1h: Decimal
    read: Decimal
    output: Decimal

    @classmethod
    def parse(cls, entry: Mapping[str, Any]) -> Rates:
        """From an entry of the price table, or its `over`."""
        return cls(**{each.name: Decimal(entry[each.name]) for each in fields(cls)})

    def of(self, usage: Usage) -> Decimal:
        """USD for the tokens of one answer, times a million."""
        return (
            usage.input * self.input
            + usage.write_5m * self.write_5m
            + usage.write_1h * self.write_1h
            + usage.read * self.read
            + usage.output * self.output
        )


@dataclass(frozen=True, slots=True)
class Price:
    """What one model cost on one day, numbers already read: it is asked for each answer of a batch."""

    rates: Rates
    most_tokens: float  # of a prompt at these rates; one with more pays `over` for every token
    over: Rates
    batch_factor: Decimal
    us_geo_factor: Decimal
    web_search: Decimal


def cost(model: str, usage: Usage, at: datetime) -> Cost | None:
    """The cost of one answer by the price of the day the batch was created; None: unpriced."""
    price = _price(model, at)
    if price is None:
        return None
    rates = price.rates if usage.prompt <= price.most_tokens else price.over
    tokens = rates.of(usage)
    if usage.geo == "us":
        tokens *= price.us_geo_factor
    fees = usage.web_searches * price.web_search
    sync = tokens / MILLION
    return Cost(batch=sync * price.batch_factor + fees, sync=sync + fees)


def priced(model: str, at: datetime) -> bool:
    """Whether answers of a model have a price on that day."""
    return _price(model, at) is not None


def min_cacheable(model: str) -> int | None:
    """The fewest tokens of a shared part that the model caches; None: not known."""
    known = price_table()["models"].get(DATED.sub("", model))
    found: int | None = known.get("min_cacheable") if known else None
    return found


@cache
def price_table() -> dict[str, Any]:
    """The shipped price table, read once per process."""
    return tomllib.loads(Path(__file__).with_name("prices.toml").read_text("utf-8"))


@lru_cache(maxsize=256)
def _price(model: str, at: datetime) -> Price | None:
    table = price_table()
    known = table["models"].get(DATED.sub("", model))
    day = at.astimezone(UTC).date()
    past = [entry for entry in known["prices"] if entry["from"] <= day] if known else []
    if not past:
        return None
    over = past[-1].get("over")
    return Price(
        rates=Rates.parse(past[-1]),
        most_tokens=over["tokens"] if over else inf,
        over=Rates.parse(over or past[-1]),
        batch_factor=Decimal(table["batch_factor"]),
        us_geo_factor=Decimal(table["us_geo_factor"]),
        web_search=Decimal(table["web_search_per_request"]),
    )


def _part(usage: Any, name: str) -> Mapping[str, Any]:
    """An object within the usage; absent and null are empty."""
    if not isinstance(usage, dict):
        raise TypeError("usage is no object")
    part = usage.get(name)
    if part is not None and not isinstance(part, dict):
        raise TypeError(f"{name} is no object")
    return part or {}


def _count(source: Mapping[str, Any], name: str, *, required: bool = False) -> int:
    """A count within the usage; absent and null are nothing, unless it is required."""
    value = source.get(name)
    if value is None and not required:
        return 0
    if type(value) is not int or not 0 <= value <= MAX_COUNT:
        raise ValueError(f"{name} is no count")
    return value


def _name(value: Any) -> str | None:
    return value if isinstance(value, str) and value.isprintable() else None
