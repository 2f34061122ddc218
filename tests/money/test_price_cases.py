"""The table of price cases: worked out from the published prices, apart from the code, to the last digit.

Prices are in USD for a million tokens: input, 5-minute write, 1-hour write, cache read, output. A batch pays half,
the US a tenth more, a web search a cent. Haiku 5.5 costs five times as much beyond 100,000 tokens of prompt.

    fable-5-1, mythos-5-1  10    12.50  20    0.25  50      sonnet-5-5 until 2026-10-06   2     2.50   4     0.20  10
    fable-5, mythos-5      10    12.50  20    1     50      sonnet-5-5 from 2026-10-07    2     2.50   4     0.10  10
    opus-5-5                4     5      8    0.20  20      sonnet-5                      2     2.50   4     0.20  10
    opus-5, 4-8 … 4-5       5     6.25  10    0.50  25      sonnet-4-6, 4-5, 4            3     3.75   6     0.30  15
    opus-4-1, opus-4       15    18.75  30    1.50  75      haiku-5-5                     0.10  0.125  0.20  0.01   0.50
    haiku-3-5               0.80  1      1.60 0.08   4      haiku-4-5                     1     1.25   2     0.10   5
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from webapp.money import ledger
from webapp.money.prices import SHIPPED, Usage, min_cacheable

NOW = datetime(2026, 11, 22, tzinfo=UTC)
BERLIN = timezone(timedelta(hours=2))
MICRODOLLAR = Decimal("0.000001")

# (what of, model, when the batch was created, tokens, USD in a batch, synchronously, synchronously and uncached)
Case = tuple[str, str, datetime, dict[str, Any], str, str, str]
CASES: list[Case] = [
    (
        "a mix of every class",
        "claude-fable-5-1",
        NOW,
        {"i": 1000, "w5": 2000, "w1": 3000, "r": 4000, "o": 500},
        "0.0605",
        "0.121",
        "0.125",
    ),
    (
        "a mix of every class",
        "claude-mythos-5-1",
        NOW,
        {"i": 1000, "w5": 2000, "w1": 3000, "r": 4000, "o": 500},
        "0.0605",
        "0.121",
        "0.125",
    ),
    (
        "a mix of every class",
        "claude-fable-5",
        NOW,
        {"i": 1000, "w5": 2000, "w1": 3000, "r": 4000, "o": 500},
        "0.062",
        "0.124",
        "0.125",
    ),
    (
        "a mix of every class",
        "claude-mythos-5",
        NOW,
        {"i": 1000, "w5": 2000, "w1": 3000, "r": 4000, "o": 500},
        "0.062",
        "0.124",
        "0.125",
    ),
    (
        "a mix of every class",
        "claude-opus-5-5",
        NOW,
        {"i": 1000, "w5": 2000, "w1": 3000, "r": 4000, "o": 500},
        "0.0244",
        "0.0488",
        "0.05",
    ),
    (
        "a mix of every class",
        "claude-opus-5",
        NOW,
        {"i": 1000, "w5": 2000, "w1": 3000, "r": 4000, "o": 500},
        "0.031",
        "0.062",
        "0.0625",
    ),
    (
        "a mix of every class",
        "claude-opus-4-8",
        NOW,
        {"i": 1000, "w5": 2000, "w1": 3000, "r": 4000, "o": 500},
        "0.031",
        "0.062",
        "0.0625",
    ),
    (
        "a mix of every class",
        "claude-opus-4-7",
        NOW,
        {"i": 1000, "w5": 2000, "w1": 3000, "r": 4000, "o": 500},
        "0.031",
        "0.062",
        "0.0625",
    ),
    (
        "a mix of every class",
        "claude-opus-4-6",
        NOW,
        {"i": 1000, "w5": 2000, "w1": 3000, "r": 4000, "o": 500},
        "0.031",
        "0.062",
        "0.0625",
    ),
    (
        "a mix of every class",
        "claude-opus-4-5-20251101",
        NOW,
        {"i": 1000, "w5": 2000, "w1": 3000, "r": 4000, "o": 500},
        "0.031",
        "0.062",
        "0.0625",
    ),
    (
        "a mix of every class",
        "claude-opus-4-1-20250805",
        NOW,
        {"i": 1000, "w5": 2000, "w1": 3000, "r": 4000, "o": 500},
        "0.093",
        "0.186",
        "0.1875",
    ),
    (
        "a mix of every class",
        "claude-opus-4-20250514",
        NOW,
        {"i": 1000, "w5": 2000, "w1": 3000, "r": 4000, "o": 500},
        "0.093",
        "0.186",
        "0.1875",
    ),
    (
        "a mix of every class",
        "claude-sonnet-5-5",
        NOW,
        {"i": 1000, "w5": 2000, "w1": 3000, "r": 4000, "o": 500},
        "0.0122",
        "0.0244",
        "0.025",
    ),
    (
        "a mix of every class",
        "claude-sonnet-5",
        NOW,
        {"i": 1000, "w5": 2000, "w1": 3000, "r": 4000, "o": 500},
        "0.0124",
        "0.0248",
        "0.025",
    ),
    (
        "a mix of every class",
        "claude-sonnet-4-6",
        NOW,
        {"i": 1000, "w5": 2000, "w1": 3000, "r": 4000, "o": 500},
        "0.0186",
        "0.0372",
        "0.0375",
    ),
    (
        "a mix of every class",
        "claude-sonnet-4-5-20250929",
        NOW,
        {"i": 1000, "w5": 2000, "w1": 3000, "r": 4000, "o": 500},
        "0.0186",
        "0.0372",
        "0.0375",
    ),
    (
        "a mix of every class",
        "claude-sonnet-4-20250514",
        NOW,
        {"i": 1000, "w5": 2000, "w1": 3000, "r": 4000, "o": 500},
        "0.0186",
        "0.0372",
        "0.0375",
    ),
    (
        "a mix of every class",
        "claude-haiku-5-5",
        NOW,
        {"i": 1000, "w5": 2000, "w1": 3000, "r": 4000, "o": 500},
        "0.00062",
        "0.00124",
        "0.00125",
    ),
    (
        "a mix of every class",
        "claude-haiku-4-5-20251001",
        NOW,
        {"i": 1000, "w5": 2000, "w1": 3000, "r": 4000, "o": 500},
        "0.0062",
        "0.0124",
        "0.0125",
    ),
    (
        "a mix of every class",
        "claude-haiku-3-5",
        NOW,
        {"i": 1000, "w5": 2000, "w1": 3000, "r": 4000, "o": 500},
        "0.00496",
        "0.00992",
        "0.01",
    ),
    (
        "a mix of every class",
        "claude-3-5-haiku-20241022",
        NOW,
        {"i": 1000, "w5": 2000, "w1": 3000, "r": 4000, "o": 500},
        "0.00496",
        "0.00992",
        "0.01",
    ),
    ("input alone", "claude-haiku-4-5", NOW, {"i": 1}, "0.0000005", "0.000001", "0.000001"),
    ("output alone", "claude-haiku-4-5", NOW, {"o": 1}, "0.0000025", "0.000005", "0.000005"),
    ("a 5-minute write", "claude-haiku-4-5", NOW, {"w5": 1}, "0.000000625", "0.00000125", "0.000001"),
    ("a 1-hour write", "claude-haiku-4-5", NOW, {"w1": 1}, "0.000001", "0.000002", "0.000001"),
    ("a cache read", "claude-haiku-4-5", NOW, {"r": 1}, "0.00000005", "0.0000001", "0.000001"),
    ("input alone", "claude-opus-5-5", NOW, {"i": 1}, "0.000002", "0.000004", "0.000004"),
    ("output alone", "claude-opus-5-5", NOW, {"o": 1}, "0.00001", "0.00002", "0.00002"),
    ("a 5-minute write", "claude-opus-5-5", NOW, {"w5": 1}, "0.0000025", "0.000005", "0.000004"),
    ("a 1-hour write", "claude-opus-5-5", NOW, {"w1": 1}, "0.000004", "0.000008", "0.000004"),
    ("a cache read", "claude-opus-5-5", NOW, {"r": 1}, "0.0000001", "0.0000002", "0.000004"),
    ("at the edge of the tier", "claude-haiku-5-5", NOW, {"i": 100000, "o": 1000}, "0.00525", "0.0105", "0.0105"),
    ("one token beyond it", "claude-haiku-5-5", NOW, {"i": 100001, "o": 1000}, "0.02625025", "0.0525005", "0.0525005"),
    (
        "at the edge, by reads and writes",
        "claude-haiku-5-5",
        NOW,
        {"i": 10000, "w5": 20000, "w1": 30000, "r": 40000, "o": 1000},
        "0.0052",
        "0.0104",
        "0.0105",
    ),
    (
        "one read beyond it",
        "claude-haiku-5-5",
        NOW,
        {"i": 10000, "w5": 20000, "w1": 30000, "r": 40001, "o": 1000},
        "0.026000025",
        "0.05200005",
        "0.0525005",
    ),
    ("one write beyond it", "claude-haiku-5-5", NOW, {"w1": 100001}, "0.0500005", "0.100001", "0.0500005"),
    ("output is no prompt", "claude-haiku-5-5", NOW, {"i": 1, "o": 200000}, "0.05000005", "0.1000001", "0.1000001"),
    ("no tier but with Haiku 5.5", "claude-opus-4-6", NOW, {"i": 900000, "o": 1000}, "2.2625", "4.525", "4.525"),
    (
        "in the US",
        "claude-opus-5-5",
        NOW,
        {"geo": "us", "i": 1000, "w5": 2000, "w1": 3000, "r": 4000, "o": 500},
        "0.02684",
        "0.05368",
        "0.055",
    ),
    (
        "in the US, beyond the edge",
        "claude-haiku-5-5",
        NOW,
        {"i": 100001, "r": 0, "o": 3, "geo": "us"},
        "0.0275044",
        "0.0550088",
        "0.0550088",
    ),
    (
        "elsewhere",
        "claude-sonnet-4-6",
        NOW,
        {"geo": "global", "i": 1000, "w5": 2000, "w1": 3000, "r": 4000, "o": 500},
        "0.0186",
        "0.0372",
        "0.0375",
    ),
    ("web searches in full", "claude-sonnet-5", NOW, {"i": 1000, "o": 100, "web": 7}, "0.0715", "0.073", "0.073"),
    (
        "web searches, and in the US: the fee is the same",
        "claude-opus-5",
        NOW,
        {"i": 1000, "o": 100, "web": 2, "geo": "us"},
        "0.024125",
        "0.02825",
        "0.02825",
    ),
    ("mostly 5-minute writes", "claude-haiku-4-5", NOW, {"w5": 90000, "w1": 10000}, "0.06625", "0.1325", "0.1"),
    ("mostly 1-hour writes", "claude-haiku-4-5", NOW, {"w5": 10000, "w1": 90000}, "0.09625", "0.1925", "0.1"),
    ("a refusal after some output", "claude-opus-5", NOW, {"i": 1000, "o": 1}, "0.0025125", "0.005025", "0.005025"),
    (
        "around the change of its reads",
        "claude-sonnet-5-5",
        datetime(2026, 10, 6, 23, 59, 59, 999999, tzinfo=UTC),
        {"r": 20000, "o": 100},
        "0.0025",
        "0.005",
        "0.041",
    ),
    (
        "around the change of its reads",
        "claude-sonnet-5-5",
        datetime(2026, 10, 7, tzinfo=UTC),
        {"r": 20000, "o": 100},
        "0.0015",
        "0.003",
        "0.041",
    ),
    (
        "around the change of its reads",
        "claude-sonnet-5-5",
        datetime(2026, 10, 7, 1, 59, tzinfo=BERLIN),
        {"r": 20000, "o": 100},
        "0.0025",
        "0.005",
        "0.041",
    ),
    (
        "around the change of its reads",
        "claude-sonnet-5-5",
        datetime(2026, 10, 7, 2, tzinfo=BERLIN),
        {"r": 20000, "o": 100},
        "0.0015",
        "0.003",
        "0.041",
    ),
    (
        "around the change of its reads",
        "claude-sonnet-5-5",
        datetime(2026, 9, 28, tzinfo=UTC),
        {"r": 20000, "o": 100},
        "0.0025",
        "0.005",
        "0.041",
    ),
    (
        "its first day",
        "claude-haiku-5-5",
        datetime(2026, 10, 7, tzinfo=UTC),
        {"i": 50},
        "0.0000025",
        "0.000005",
        "0.000005",
    ),
    ("its first day", "claude-opus-5-5", datetime(2026, 9, 22, tzinfo=UTC), {"i": 50}, "0.0001", "0.0002", "0.0002"),
    (
        "the most that counts hold",
        "claude-sonnet-5-5",
        NOW,
        {"i": 2147483647, "o": 2147483647},
        "12884.901882",
        "25769.803764",
        "25769.803764",
    ),
]


def message(tokens: dict[str, Any], model: str = "claude-haiku-4-5", stop_reason: str = "end_turn") -> dict[str, Any]:
    """An answer as the API writes it."""
    five, hour = tokens.get("w5", 0), tokens.get("w1", 0)
    return {
        "model": model,
        "stop_reason": stop_reason,
        "usage": {
            "input_tokens": tokens.get("i", 0),
            "output_tokens": tokens.get("o", 0),
            "cache_creation_input_tokens": five + hour,
            "cache_read_input_tokens": tokens.get("r", 0),
            "cache_creation": {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour},
            "server_tool_use": {"web_search_requests": tokens["web"]} if "web" in tokens else None,
            "inference_geo": tokens.get("geo", "not_available"),
            "service_tier": "batch",
        },
    }


def billed(answer: dict[str, Any], at: datetime = NOW) -> dict[str, Any]:
    """What the ledger says of an answer, by column."""
    line = ledger.line(ledger.bill(ledger.Billed("b", 1, 1, at), "c", answer), 1, duplicate=False)
    return dict(zip(ledger.COLUMNS, line, strict=True))


@pytest.mark.parametrize(
    ("model", "at", "tokens", "batch", "sync", "uncached"),
    [case[1:] for case in CASES],
    ids=[f"{case[1]}, {case[0]}" for case in CASES],
)
def test_an_answer_costs_what_was_worked_out_by_hand(
    model: str, at: datetime, tokens: dict[str, Any], batch: str, sync: str, uncached: str
) -> None:
    """I10: cache tokens at full price, or the discount not applied to the cache."""
    line = billed(message(tokens, model), at)
    found = (line["cost_usd"], line["sync_cost_usd"], line["uncached_cost_usd"])
    assert found == (Decimal(batch), Decimal(sync), Decimal(uncached))
    assert abs(found[0] - Decimal(batch)) < MICRODOLLAR


def test_the_table_has_a_case_of_each_model_with_a_price() -> None:
    plain = {case[1] if not case[1][-8:].isdigit() else case[1][:-9] for case in CASES}
    assert len(CASES) >= 40 and plain == {model for model in SHIPPED.models if SHIPPED.priced(model, NOW)}


@pytest.mark.parametrize(
    ("model", "at"),
    [
        ("claude-fable-5-2", NOW),
        ("claude-mythos-5-2", NOW),
        ("claude-haiku-9", NOW),
        ("claude-haiku-5-5", datetime(2026, 10, 6, 23, 59, tzinfo=UTC)),
        ("claude-sonnet-5-5", datetime(2026, 9, 28, 1, 59, tzinfo=BERLIN)),
        ("claude-opus-5-5", datetime(2026, 9, 21, 23, 59, tzinfo=UTC)),
    ],
)
def test_what_has_no_price_or_none_yet_is_unpriced(model: str, at: datetime) -> None:
    line = billed(message({"i": 1000, "o": 10}, model), at)
    names = ("cost_usd", "sync_cost_usd", "uncached_cost_usd", "price")
    assert [line[name] for name in names] == [None] * 4
    assert (line["input_tokens"], line["model"]) == (1000, model)


@pytest.mark.parametrize(
    ("model", "stop_reason", "output", "dollars"),
    [
        ("claude-fable-5", "refusal", 0, "0"),
        ("claude-fable-5", "refusal", 1, "0.005025"),
        ("claude-fable-5", "end_turn", 0, "0.005"),
        ("claude-fable-5-1", "refusal", 0, "0.005"),
        ("claude-opus-5", "refusal", 0, "0.0025"),
    ],
)
def test_a_refusal_before_any_output_is_free_where_that_was_published(
    model: str, stop_reason: str, output: int, dollars: str
) -> None:
    line = billed(message({"i": 1000, "o": output}, model, stop_reason))
    assert line["cost_usd"] == Decimal(dollars)
    assert (line["price"] == "2026-01-01 refused") is (dollars == "0")


def test_a_line_names_the_price_it_was_made_by() -> None:
    for tokens, name in (({"i": 100_000}, "2026-10-07"), ({"i": 100_001}, "2026-10-07 over")):
        line = billed(message(tokens, "claude-haiku-5-5"))
        rates = SHIPPED.named("claude-haiku-5-5", line["price"])
        assert line["price"] == name and rates is not None
        assert line["sync_cost_usd"] == rates.input * tokens["i"] / 1_000_000
    assert SHIPPED.named("claude-haiku-5-5", "override 3") is None
    usage = Usage.parse(message({"i": 1})["usage"])
    assert usage and SHIPPED.cost("claude-sonnet-5-5", usage, NOW)[3] == "2026-10-07"  # type: ignore[index]


def test_what_the_shortest_cached_prefix_is_was_published_for_most_models() -> None:
    found = {model: min_cacheable(f"claude-{model}") for model in ("opus-5-5", "opus-4-8", "opus-4-7", "opus-4-6")}
    assert found == {"opus-5-5": 512, "opus-4-8": 1024, "opus-4-7": 2048, "opus-4-6": 4096}
    assert min_cacheable("claude-haiku-4-5-20251001") == 4096
    assert min_cacheable("claude-fable-5-2") is None and min_cacheable("claude-haiku-9") is None
