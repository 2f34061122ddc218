"""Whether one request goes ahead to write the shared part: reckoned by hand from prices and counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from webapp.money import priming
from webapp.money.prediction import History, Sampled, Work, forecast
from webapp.money.prices import SHIPPED
from webapp.money.priming import Prime

DAY = datetime(2026, 11, 20, tzinfo=UTC)
SAMPLE = (Sampled(100, 8130), Sampled(200, 8155), Sampled(400, 8205))
BEFORE = History(
    answers=400, output=Decimal(50), least=Decimal(48), most=Decimal(52), read=0, written=0, runs=2, alike=True,
    warm=True,
)  # fmt: skip


def shared(ttl: str | None = "1h", model: str = "claude-sonnet-5-5") -> Mapping[str, Any]:
    mark = {"cache_control": {"type": "ephemeral", "ttl": ttl}} if ttl else {}
    return {"model": model, "max_tokens": 1000, "system": [{"type": "text", "text": "r" * 24_000, **mark}]}


def work(part: Mapping[str, Any], **given: Any) -> Work:
    """40,000 requests in four batches, with 8,000 counted tokens before the mark."""
    values = {"requests": 40_000, "batches": 4, "own_bytes": Decimal(12_000_000), "shared_tokens": 8000}
    model = str(part["model"])
    price = given.pop("price", lambda usage: SHIPPED.cost(model, usage, DAY))
    return Work(model=model, price=price, shared=part, sample=SAMPLE, **values | given)


def test_many_requests_with_a_long_shared_part_are_primed_and_the_sentence_says_what_it_saves() -> None:
    found = priming.decide(work(shared()))
    assert found.primed
    # A hundred of each batch would write 8,000 tokens at half of 4 dollars a million, instead of reading at half of
    # 0.10: 399 of them 0.0156 dollars each.
    assert "8,000 tokens" in found.words and "about 400 of the requests" in found.words
    assert "0.016000 USD" in found.words and "0.000400" in found.words and "about 6.22 USD" in found.words


@pytest.mark.parametrize(
    ("ttl", "given", "words"),
    [
        ("1h", {"requests": 100, "batches": 1}, "of 100 requests hardly one begins before"),
        ("1h", {"requests": 2000, "batches": 1}, "saves only 0.30 USD"),
        ("1h", {"shared_tokens": None}, "could not be counted"),
        ("1h", {"history": BEFORE}, "was sent lately"),
        ("1h", {"price": lambda usage: None}, "no known price"),
        ("5m", {}, "for five minutes"),
        # Nothing is cached: the estimate says that already.
        ("1h", {"shared_tokens": 500}, ""),
        (None, {}, ""),
        ("1h", {"requests": 1, "batches": 1}, ""),
    ],
)
def test_where_it_does_not_pay_nobody_waits_and_the_sentence_says_why(
    ttl: str | None, given: dict[str, Any], words: str
) -> None:
    found = priming.decide(work(shared(ttl), **given))
    assert not found.primed
    assert words in found.words
    assert bool(words) == bool(found.words)


def test_the_models_own_minimum_and_prices_decide() -> None:
    # Haiku 5.5 reads at a tenth, and at twenty-fifth of the price: 399 times 0.0008 less 0.00004 dollars.
    assert not priming.decide(work(shared(model="claude-haiku-5-5"))).primed
    assert priming.decide(work(shared(model="claude-haiku-5-5"), requests=100_000, batches=10)).primed
    # 4,096 are needed.
    assert not priming.decide(work(shared(model="claude-opus-4-6"), shared_tokens=4000)).primed
    assert priming.decide(work(shared(model="claude-opus-4-6"), shared_tokens=4200)).primed
    # Nobody knows what it caches, or what it costs.
    assert priming.decide(work(shared(model="claude-fable-5-2"))).words == ""


def test_whoever_starts_a_run_may_decide_against_the_numbers() -> None:
    few = work(shared(), requests=3, batches=1)
    assert priming.decide(few, Prime.ON).primed
    assert "asked for" in priming.decide(few, Prime.ON).words
    many = work(shared())
    assert not priming.decide(many, Prime.OFF).primed
    assert "asked for" in priming.decide(many, Prime.OFF).words
    one = priming.decide(work(shared(), requests=1, batches=1), Prime.ON)
    assert not one.primed and "nothing to send after" in one.words


def test_a_primed_run_is_estimated_to_cost_less_and_says_why() -> None:
    plain = work(shared())
    decision = priming.decide(plain)
    primed = replace(plain, primed=decision.primed, priming=decision.words)
    before, after = forecast(plain), forecast(primed)
    assert before.likely_usd is not None and after.likely_usd is not None
    assert after.likely_usd < before.likely_usd
    assert decision.words in after.reasons
