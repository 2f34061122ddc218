"""Prices as data (`prices.toml`) and the cost of one answer, exact and unrounded.
The ledger prices each billed answer with `cost`; nothing here touches the database.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

MILLION = Decimal(1_000_000)
MAX_COUNT = 2**31 - 1  # what a column of the ledger holds; nothing real comes near it
DATED = re.compile(r"-\d{8}$")  # claude-haiku-4-5-20251001 is claude-haiku-4-5 of one day


@dataclass(frozen=True, slots=True)
class Usage:
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


@dataclass(frozen=True, slots=True)
class Cost:
    """What an answer cost in its batch, and what it would have cost synchronously, in USD, unrounded."""

    batch: Decimal
    sync: Decimal


def cost(model: str, usage: Usage, at: datetime) -> Cost | None:
    """The cost of one answer by the price of the day the batch was created; None: unpriced."""
    table = price_table()
    price = _price(model, at)
    if price is None:
        return None
    over = price.get("over")
    rate = over if over and usage.prompt > over["tokens"] else price
    tokens = sum(
        (
            Decimal(getattr(usage, name)) * Decimal(rate[name])
            for name in ("input", "write_5m", "write_1h", "read", "output")
        ),
        Decimal(0),
    )
    if usage.geo == "us":
        tokens *= Decimal(table["us_geo_factor"])
    fees = Decimal(usage.web_searches) * Decimal(table["web_search_per_request"])
    sync = tokens / MILLION
    return Cost(batch=sync * Decimal(table["batch_factor"]) + fees, sync=sync + fees)


@cache
def price_table() -> dict[str, Any]:
    """The shipped price table, read once per process."""
    return tomllib.loads(Path(__file__).with_name("prices.toml").read_text("utf-8"))


@cache
def _price_on(model: str, day: str) -> dict[str, Any] | None:
    known = price_table()["models"].get(DATED.sub("", model))
    if known is None:
        return None
    past: list[dict[str, Any]] = [price for price in known["prices"] if price["from"].isoformat() <= day]
    return past[-1] if past else None


def _price(model: str, at: datetime) -> dict[str, Any] | None:
    return _price_on(model, at.astimezone(UTC).date().isoformat())


def _part(usage: Any, name: str) -> Mapping[str, Any]:
    """An object within the usage; absent and null are empty."""
    if not isinstance(usage, Mapping):
        raise TypeError("usage is no object")
    part = usage.get(name)
    if part is not None and not isinstance(part, Mapping):
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
