"""Prices: cases computed by hand from the published table, to the last digit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webapp.money.prices import SHIPPED, Usage, price_table

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def usage(**counts: Any) -> dict[str, Any]:
    """A usage as the API writes it: `i`nput, `o`utput, `w`rites (5m, 1h), `r`eads, `geo`, `web` searches."""
    five, hour = counts.get("w", (0, 0))
    return {
        "input_tokens": counts.get("i", 0),
        "output_tokens": counts.get("o", 0),
        "cache_creation_input_tokens": five + hour,
        "cache_read_input_tokens": counts.get("r", 0),
        "cache_creation": {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour},
        "server_tool_use": {"web_search_requests": counts["web"], "web_fetch_requests": 9} if "web" in counts else None,
        "inference_geo": counts.get("geo", "global"),
        "service_tier": "batch",
    }


def priced(model: str, at: datetime = NOW, **counts: Any) -> Decimal | None:
    parsed = Usage.parse(usage(**counts))
    assert parsed is not None
    found = SHIPPED.cost(model, parsed, at)
    return found.batch if found else None


# (model, counts, USD in a batch)
CASES: list[tuple[str, dict[str, Any], str]] = [
    ("claude-haiku-4-5", {"i": 1_000_000}, "0.5"),
    ("claude-haiku-4-5", {"o": 1_000_000}, "2.5"),
    ("claude-haiku-4-5", {"i": 16, "o": 5}, "0.0000205"),
    ("claude-haiku-4-5-20251001", {"i": 16, "o": 5}, "0.0000205"),
    ("claude-haiku-4-5", {"w": (1_000_000, 0)}, "0.625"),
    ("claude-haiku-4-5", {"w": (0, 1_000_000)}, "1"),
    ("claude-haiku-4-5", {"r": 1_000_000}, "0.05"),
    ("claude-opus-5", {"i": 1000, "w": (2000, 3000), "r": 40_000, "o": 500}, "0.04"),
    ("claude-opus-5-5", {"i": 1_000_000, "o": 1_000_000}, "12"),
    ("claude-opus-5-5", {"r": 1_000_000}, "0.1"),
    ("claude-opus-4-8", {"i": 200_000, "o": 10_000}, "0.625"),
    ("claude-opus-4-5-20251101", {"i": 1, "o": 1}, "0.000015"),
    ("claude-sonnet-5-5", {"i": 3, "o": 7}, "0.000038"),
    ("claude-sonnet-5-5", {"r": 1_000_000}, "0.05"),
    ("claude-sonnet-5", {"r": 1_000_000}, "0.1"),
    ("claude-sonnet-4-6", {"i": 1_000_000, "w": (1_000_000, 1_000_000), "r": 1_000_000, "o": 1_000_000}, "14.025"),
    ("claude-sonnet-4-5-20250929", {"o": 1}, "0.0000075"),
    ("claude-fable-5-1", {"r": 1_000_000}, "0.125"),
    ("claude-fable-5", {"r": 1_000_000}, "0.5"),
    ("claude-mythos-5-1", {"i": 100, "o": 100}, "0.003"),
    ("claude-haiku-5-5", {"i": 100_000, "o": 1000}, "0.00525"),
    ("claude-haiku-5-5", {"i": 100_001, "o": 1000}, "0.02625025"),
    ("claude-haiku-5-5", {"i": 50_000, "w": (25_000, 0), "r": 25_000}, "0.0041875"),
    ("claude-haiku-5-5", {"i": 50_000, "w": (25_000, 0), "r": 25_001}, "0.020937525"),
    ("claude-haiku-5-5", {"w": (0, 100_001)}, "0.0500005"),
    ("claude-opus-5", {"i": 1_000_000, "geo": "us"}, "2.75"),
    ("claude-opus-5", {"i": 1_000_000, "geo": "eu"}, "2.5"),
    ("claude-opus-5", {"i": 1_000_000, "r": 1_000_000, "o": 1_000_000, "geo": "us"}, "16.775"),
    ("claude-sonnet-5", {"i": 1_000_000, "web": 3}, "1.03"),
    ("claude-sonnet-5", {"i": 1_000_000, "geo": "us", "web": 2}, "1.12"),
    ("claude-haiku-4-5", {}, "0"),
]


@pytest.mark.parametrize(("model", "counts", "dollars"), CASES)
def test_an_answer_costs_what_the_table_says(model: str, counts: dict[str, Any], dollars: str) -> None:
    """I10: cache tokens at full price, or the discount not applied to the cache."""
    assert priced(model, **counts) == Decimal(dollars)


def test_the_synchronous_price_is_twice_the_batchs_but_for_fees() -> None:
    found = SHIPPED.cost("claude-sonnet-5", Usage.parse(usage(i=1_000_000, web=3)), NOW)  # type: ignore[arg-type]
    assert found and (found.batch, found.sync) == (Decimal("1.03"), Decimal("2.03"))


@pytest.mark.parametrize(
    ("model", "at", "dollars"),
    [
        ("claude-sonnet-5-5", datetime(2026, 10, 6, 23, 59, tzinfo=UTC), "0.1"),
        ("claude-sonnet-5-5", datetime(2026, 10, 7, 0, 0, tzinfo=UTC), "0.05"),
        ("claude-sonnet-5-5", datetime(2026, 10, 7, 1, 0, tzinfo=timezone(timedelta(hours=2))), "0.1"),
        ("claude-sonnet-5-5", datetime(2026, 9, 27, tzinfo=UTC), None),
        ("claude-haiku-5-5", datetime(2026, 10, 6, tzinfo=UTC), None),
    ],
)
def test_the_price_is_that_of_the_day_the_batch_was_created(model: str, at: datetime, dollars: str | None) -> None:
    assert priced(model, at, r=1_000_000) == (Decimal(dollars) if dollars else None)


@pytest.mark.parametrize(
    "model", ["claude-haiku-9", "claude-fable-5-2", "", "haiku", "claude-haiku-4-5-2025100", "claude-3-opus-20240229"]
)
def test_a_model_without_a_price_is_unpriced_not_free(model: str) -> None:
    """I9: cost always $0."""
    assert priced(model, i=1_000_000) is None


def test_writes_without_a_split_are_of_the_default_kind() -> None:
    plain = {"input_tokens": 0, "output_tokens": 0, "cache_creation_input_tokens": 1_000_000}
    for split in ({}, {"cache_creation": None}, {"cache_creation": {}}, {"cache_creation": {"later_kind": 1_000_000}}):
        parsed = Usage.parse(plain | split)
        assert parsed and (parsed.write_5m, parsed.write_1h) == (1_000_000, 0)
    parsed = Usage.parse(plain | {"cache_creation": {"ephemeral_1h_input_tokens": 400_000}})
    assert parsed and (parsed.write_5m, parsed.write_1h) == (600_000, 400_000)


@pytest.mark.parametrize(
    "found",
    [
        None,
        [],
        "usage",
        {},
        {"input_tokens": 1},
        {"output_tokens": 1},
        {"input_tokens": 1, "output_tokens": None},
        {"input_tokens": -1, "output_tokens": 1},
        {"input_tokens": True, "output_tokens": 1},
        {"input_tokens": 1.0, "output_tokens": 1},
        {"input_tokens": "1", "output_tokens": 1},
        {"input_tokens": 2**31, "output_tokens": 1},
        {"input_tokens": 1, "output_tokens": 1, "cache_read_input_tokens": "many"},
        {"input_tokens": 1, "output_tokens": 1, "cache_creation": [1]},
        {"input_tokens": 1, "output_tokens": 1, "server_tool_use": {"web_search_requests": -1}},
    ],
)
def test_a_usage_that_cannot_be_read_whole_has_no_price(found: Any) -> None:
    assert Usage.parse(found) is None


counts = st.integers(0, 2_000_000)


@given(
    st.sampled_from([name for name in SHIPPED.models if SHIPPED.priced(name, NOW)]),
    counts,
    counts,
    counts,
    counts,
    counts,
)
def test_a_batch_pays_half_of_every_class_exactly(model: str, i: int, five: int, hour: int, r: int, o: int) -> None:
    found = SHIPPED.cost(model, Usage.parse(usage(i=i, o=o, w=(five, hour), r=r)), NOW)  # type: ignore[arg-type]
    assert found is not None
    assert found.batch * 2 == found.sync >= 0


def test_every_price_has_the_multipliers_that_were_published() -> None:
    """1.25 and 2 times the input for the two writes; a batch's half is not in the table."""
    for model, entry in price_table()["models"].items():
        for price in entry["prices"]:
            for rates in (price, price.get("over", price)):
                base = Decimal(rates["input"])
                assert Decimal(rates["write_5m"]) == base * Decimal("1.25"), model
                assert Decimal(rates["write_1h"]) == base * 2, model
                assert Decimal(rates["output"]) == base * 5, model
                assert Decimal("0.02") <= Decimal(rates["read"]) / base <= Decimal("0.1"), model
        days = [price["from"] for price in entry["prices"]]
        assert days == sorted(set(days))


def test_prices_are_written_as_text_so_that_no_digit_is_lost() -> None:
    for entry in price_table()["models"].values():
        for price in entry["prices"]:
            assert all(isinstance(value, str) for name, value in price.items() if name not in ("from", "over"))
