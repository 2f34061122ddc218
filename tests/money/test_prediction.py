"""What a forecast is made of: counts or bytes, pixels, the cache, answers before or a guess, and the day's prices."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from webapp.money import guesses
from webapp.money.prediction import WIDEST, Forecast, History, Sampled, Work, forecast, marked_part
from webapp.money.prices import SHIPPED

DAY = datetime(2026, 11, 20, tzinfo=UTC)
PLAIN: Mapping[str, Any] = {"model": "claude-opus-4-8", "max_tokens": 1000, "system": "Say what it is."}
MARKED: Mapping[str, Any] = {
    **PLAIN,
    "system": [{"type": "text", "text": "r" * 8000, "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
}
BEFORE = History(
    answers=400, output=Decimal(50), least=Decimal(48), most=Decimal(52), read=0, written=0, runs=2, alike=True,
    warm=False,
)  # fmt: skip
SAMPLE = (Sampled(100, 130), Sampled(200, 155), Sampled(400, 205))  # a hundred tokens, and one for four bytes


def told(shared: Mapping[str, Any] = PLAIN, *, requests: int = 1000, **given: Any) -> Forecast:
    """A forecast for requests of 300 bytes each."""
    model = str(shared["model"])
    values = {"batches": 1, "own_bytes": Decimal(300 * requests), "sample": SAMPLE, "history": BEFORE} | given
    return forecast(
        Work(
            model=model, price=lambda usage: SHIPPED.cost(model, usage, DAY), requests=requests, shared=shared, **values
        )
    )


def amounts(found: Forecast) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    assert found.low_usd is not None and found.likely_usd is not None
    assert found.high_usd is not None and found.most_usd is not None
    return found.low_usd, found.likely_usd, found.high_usd, found.most_usd


def words(found: Forecast, *parts: str) -> None:
    text = " ".join(found.reasons)
    for part in parts:
        assert part in text, text


def test_counts_and_bytes_and_answers_before_make_the_likely_cost() -> None:
    found = told()
    low, likely, high, most = amounts(found)
    # By the line: 105 + 300 / 4 = 180 tokens in, and 50 out, at half of 5 and 25 dollars a million.
    assert likely == pytest.approx(Decimal(1000) * (180 * Decimal("2.5") + 50 * Decimal("12.5")) / 10**6)
    assert low < likely < high < most
    assert high / low < Decimal("1.5")
    assert most == pytest.approx(
        Decimal(1000) * (180 * Decimal("2.5") + 1000 * Decimal("12.5")) / 10**6, rel=Decimal("0.05")
    )
    words(found, "counted 3 of the 1,000 requests", "400 answers", "with the same settings", "no cache mark")


def test_without_counts_the_bytes_are_taken_and_the_reason_told() -> None:
    counted = told()
    found = told(sample=(), uncounted="The key may not count.")
    low, _, high, _ = amounts(found)
    assert high / low > amounts(counted)[2] / amounts(counted)[0]
    words(found, "No tokens were counted (The key may not count)", "bytes a request are taken for")


def test_a_guess_is_called_one_and_the_most_is_told_beside_it() -> None:
    found = told(history=None)
    low, _, high, most = amounts(found)
    assert high <= low * WIDEST < most
    words(found, "a guess from the form of the answer; max_tokens allows 1,000", "At the very most")


def test_answers_are_never_taken_to_be_longer_than_max_tokens() -> None:
    low, _, high, most = amounts(told({**PLAIN, "max_tokens": 10}))
    assert high / low < Decimal("1.2") and most <= high * Decimal("1.04")


def test_a_model_without_a_price_is_unpriced_and_not_free() -> None:
    found = told({**PLAIN, "model": "claude-fable-5-2"})
    assert (found.low_usd, found.likely_usd, found.high_usd, found.most_usd) == (None,) * 4
    words(found, "claude-fable-5-2 has no known price")


def test_nothing_to_send_costs_nothing() -> None:
    assert amounts(told(requests=0, own_bytes=Decimal(0))) == (0, 0, 0, 0)


def test_what_is_cached_is_cheaper_where_it_is_long_enough() -> None:
    plain = amounts(told({**MARKED, "system": "r" * 8000}, shared_tokens=2000))
    found = told(MARKED, sample=tuple(Sampled(one.size, one.tokens + 2000) for one in SAMPLE), shared_tokens=2000)
    full = told({**MARKED, "system": "r" * 8000}, sample=tuple(Sampled(one.size, one.tokens + 2000) for one in SAMPLE))
    assert plain[1] < amounts(found)[1] < amounts(full)[1] / 2
    words(found, "about 2,000 tokens is cached (at least 1,024 are needed)", "88% to 98%", "only 30% of the requests")
    words(told(MARKED, shared_tokens=900), "about 900 tokens is under the 1,024")
    words(told({**MARKED, "model": "claude-nobody-9"}, shared_tokens=900), "is not known")


def test_hits_that_were_measured_are_taken_for_those_to_come() -> None:
    sample = tuple(Sampled(one.size, one.tokens + 2000) for one in SAMPLE)
    seen = {"answers": 400, "output": Decimal(50), "least": Decimal(50), "most": Decimal(50), "runs": 1, "alike": True}
    half = History(**seen, read=400_000, written=402_000, warm=False)  # type: ignore[arg-type]
    most = History(**seen, read=796_000, written=6_000, warm=True)  # type: ignore[arg-type]
    poor, good = (told(MARKED, sample=sample, shared_tokens=2000, history=one) for one in (half, most))
    assert amounts(poor)[1] > amounts(good)[1] * 3
    words(poor, "50% of the requests after the first one read it", "is written at least once")
    words(good, "100% of the requests", "may be cached still")


def test_the_us_and_long_prompts_have_their_own_rates() -> None:
    assert amounts(told({**PLAIN, "inference_geo": "us"}))[1] == pytest.approx(amounts(told())[1] * Decimal("1.1"))
    haiku = {**PLAIN, "model": "claude-haiku-5-5"}
    short, long = (
        amounts(told(haiku, sample=(), own_bytes=Decimal(1000 * size), history=BEFORE))[1]
        for size in (200_000, 400_000)
    )
    assert long > short * 8  # twice the tokens at five times the price


def test_images_and_searches_are_told() -> None:
    found = told(
        {**PLAIN, "tools": [{"type": "web_search_20250305", "name": "web_search"}]}, image_tokens=Decimal(500_000)
    )
    assert amounts(found)[1] - amounts(told())[1] == pytest.approx(Decimal("1.25"))
    words(found, "500 tokens a request by their pixels", "Web searches cost extra")


def test_what_was_only_sampled_makes_the_range_wider() -> None:
    measured, guessed = amounts(told()), amounts(told(size_error=Decimal("0.1")))
    assert guessed[2] / guessed[0] > measured[2] / measured[0]


@pytest.mark.parametrize(
    ("width", "height", "model", "tokens"),
    [
        (28, 28, "claude-haiku-4-5", 1),
        (100, 57, "claude-haiku-4-5", 12),
        (8000, 100, "claude-haiku-4-5", 56),
        (4000, 4000, "claude-haiku-4-5", 1568),
        (4000, 4000, "claude-opus-4-7", 4784),
        (1568, 28, "claude-haiku-5-5", 56),
        (0, 0, "claude-haiku-5-5", 1),
    ],
)
def test_images_are_counted_by_their_patches(width: int, height: int, model: str, tokens: int) -> None:
    assert guesses.tokens_of_image(width, height, model) == tokens


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("claude-opus-4-7", (4, 7)),
        ("claude-haiku-4-5-20251001", (4, 5)),
        ("claude-opus-5", (5, 0)),
        ("something-else", (99, 0)),
    ],
)
def test_a_models_generation_is_in_its_name(model: str, found: tuple[int, int]) -> None:
    assert guesses.generation(model) == found


def test_the_form_of_an_answer_says_how_long_it_may_be() -> None:
    def likely(schema: Any, **more: Any) -> Decimal:
        shared = {"output_config": {"format": {"type": "json_schema", "schema": schema}}, **more}
        return guesses.output_tokens(shared, "claude-opus-4-5").likely

    label = {"type": "object", "properties": {"label": {"enum": ["alpha", "beta"]}}}
    words_ = {"type": "object", "properties": {"why": {"type": "string"}}}
    many = {"type": "array", "items": {"$ref": "#/$defs/w"}, "$defs": {"w": words_}}
    loop = {"$ref": "#/$defs/x", "$defs": {"x": {"$ref": "#/$defs/x"}}}
    assert likely(label) < 12 < likely(words_) < likely(many) / 2
    assert likely({"anyOf": [{"type": "null"}, words_]}) == likely(words_)
    assert likely({"type": ["null", "integer"]}) < 4 < likely({"type": "string", "format": "date"}) < 12
    assert likely(loop) == guesses.STRING and likely({"const": "yes"}) < 3
    tool = {"tools": [{"name": "t", "input_schema": label}], "tool_choice": {"type": "tool", "name": "t"}}
    assert guesses.output_tokens(tool, "claude-opus-4-5").likely == likely(label)
    thinking = guesses.output_tokens(tool, "claude-opus-5").likely
    assert thinking > guesses.output_tokens({**tool, "thinking": {"type": "disabled"}}, "claude-opus-5").likely * 3


def test_the_part_before_the_last_cache_mark_is_what_is_cached() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    assert marked_part({"system": "a"}) == marked_part({}) == 0
    assert marked_part({"system": [{"text": "a", **mark}], "tools": [{"name": "b"}]}) == 1
    assert 0 < marked_part({"system": [{"text": "a"}, {"text": "b", **mark}, {"text": "c" * 500}]}) < Decimal("0.3")
