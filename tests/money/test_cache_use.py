"""The measured use of the cache, and why it was little: each reason by its own numbers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from webapp.money.caching import Hits, Marked, Sent, measure

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
TOKENS = 8000


def marked(ttl: str = "1h", *, size: int = 24_000, own: bool = False, model: str = "claude-sonnet-5-5") -> Marked:
    mark = {"type": "ephemeral", "ttl": ttl}
    return Marked({"model": model, "system": [{"type": "text", "text": "r" * size, "cache_control": mark}]}, model, own)


def sent(number: int, at: float, took: float | None, lines: int, writes: int) -> Sent:
    """A batch that was sent some minutes after noon, of whose answers some wrote the shared part."""
    begun = NOON + timedelta(minutes=at)
    ended = None if took is None else begun + timedelta(minutes=took)
    return Sent(number, begun, ended, lines, (lines - writes) * TOKENS, writes * TOKENS)


def found(what: Marked, *batches: Sent, of: int | None = None) -> Hits:
    hits = measure(what, batches, batches if of is None else [batches[of]])
    assert hits is not None
    return hits


def test_what_was_read_is_a_part_of_what_was_read_or_written() -> None:
    hits = found(marked(), sent(1, 0, 3, 1, 1), sent(2, 4, 30, 1000, 20))
    assert (hits.read, hits.written) == (980 * TOKENS, 21 * TOKENS)
    assert hits.rate == Decimal(980) / 1001
    assert hits.words == ""  # not low


def test_before_an_answer_there_is_nothing_to_say() -> None:
    assert measure(marked(), [sent(1, 0, None, 0, 0)], [sent(1, 0, None, 0, 0)]) is None


@pytest.mark.parametrize(
    ("batches", "of", "words"),
    [
        # Sent together, before any had ended.
        ((sent(1, 0, 30, 1000, 200), sent(2, 0.1, 30, 1000, 300)), None, "500 answers wrote it themselves in batches"),
        ((sent(1, 0, 30, 1000, 200), sent(2, 0.1, 30, 1000, 300)), 1, "300 answers wrote it themselves in batches"),
        # The one that went ahead had ended 70 minutes before the rest was sent.
        ((sent(1, 0, 5, 1, 1), sent(2, 75, 30, 1000, 300)), 1, "300 answers wrote it again in batches that were sent"),
        # It was there, 50 minutes before.
        ((sent(1, 0, 5, 1, 1), sent(2, 55, 30, 1000, 300)), 1, "300 answers wrote it again though it had been written"),
        # One of three has to write it.
        ((sent(1, 0, 5, 3, 1),), None, "It was written once; of 3 answers the others read it."),
    ],
)
def test_too_early_too_late_and_missed_are_told_apart_by_the_times_of_the_batches(
    batches: tuple[Sent, ...], of: int | None, words: str
) -> None:
    assert words in found(marked(), *batches, of=of).words


def test_of_several_reasons_the_one_with_most_answers_comes_first() -> None:
    words = found(marked(), sent(1, 0, 5, 100, 30), sent(2, 70, 5, 1000, 300), sent(3, 76, 5, 1000, 150)).words
    assert [words.index(part) for part in ("300 answers", "150 answers", "30 answers")] == sorted(
        words.index(part) for part in ("300 answers", "150 answers", "30 answers")
    )


def test_five_minutes_are_too_short_for_a_batch_that_takes_longer() -> None:
    words = found(marked("5m"), sent(1, 0, 3, 1, 1), sent(2, 4, 40, 1000, 300), of=1).words
    assert "took longer than the 5 minutes" in words and "a mark for an hour" in words


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (marked(size=600), "under the 512 that the model needs"),
        (marked(size=9000, model="claude-opus-4-6"), "under the 4,096 that the model needs"),
        (marked(), "The API cached nothing of the shared part"),
        (marked(model="claude-fable-5-2"), "is not known"),
    ],
)
def test_where_nothing_was_cached_the_models_minimum_tells_why(what: Marked, words: str) -> None:
    nothing = Sent(1, NOON, NOON, 1000, 0, 0)
    hits = found(what, nothing)
    assert hits.rate is None
    assert words in hits.words


def test_without_a_mark_nothing_is_said_of_the_cache() -> None:
    shared: dict[str, Any] = {"model": "claude-sonnet-5-5", "system": "short"}
    nothing = [Sent(1, NOON, NOON, 1000, 0, 0)]
    assert measure(Marked(shared, "claude-sonnet-5-5", own=False), nothing, nothing) is None


def test_what_differs_from_request_to_request_is_written_each_time() -> None:
    one = Sent(1, NOON, NOON + timedelta(minutes=30), 1000, 1000 * TOKENS, 1000 * 3000)
    words = found(marked(own=True), one).words
    assert "11,000 tokens of each request are marked, also in its own part" in words
