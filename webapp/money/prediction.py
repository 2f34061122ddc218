"""What requests are likely to cost before they are sent: a range, and in sentences what it is made of.
Pure: the domain measures requests, has a sample counted and looks up what was answered before; this adds it up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import ceil
from typing import Any, NamedTuple

from webapp.money import guesses
from webapp.money.guesses import Span
from webapp.money.prices import Cost, Usage, min_cacheable
from webapp.records import jsontext

WIDEST = Decimal("2.5")  # the range's top is at most so many times its bottom; what may lie beyond it is `most_usd`
COUNT_ERROR = Decimal("0.03")  # the API calls its counts an estimate, a small part off
SURE = Decimal("2.5")  # standard errors on either side that a sample is believed to
SCARCE = Decimal("0.03")  # of the hit rate on either side, at least
# Best, likely and worst part of requests that read a cached part, where none was measured.
HITS = (Decimal("0.98"), Decimal("0.96"), Decimal("0.88"))
FEWEST_HITS = Decimal("0.3")  # that anybody has reported of batches
# Part of a batch's requests that begin before the first has written what was in no cache: a guess. Of those that are
# read best, 98 of 100 are.
COLD = Decimal("0.01")
BULK = 1_000_000
ROUNDING = Decimal("0.001")
NARROW = Decimal("0.1")  # of the length of answers on either side, where the settings were the same
WIDE = Decimal("0.5")
SPREAD = Decimal("0.6")  # how different the lengths of answers are, as a part of their mean
NOTHING = Decimal()


@dataclass(frozen=True, slots=True)
class Sampled:
    """One request that was looked at.

    :param size: bytes of its own part, images left out.
    :param tokens: of its prompt without the images, as the API counts them.
    """

    size: int
    tokens: int


@dataclass(frozen=True, slots=True)
class History:
    """What answers of the same task with the same model came to.

    :param output: tokens of an answer on average; `least` and `most` of the runs' own averages.
    :param read: tokens that were read from the cache, and `written`: to it, by all of `runs` together.
    :param alike: whether their settings were the same.
    :param warm: whether the same shared part was sent so lately that it may still be cached.
    """

    answers: int
    output: Decimal
    least: Decimal
    most: Decimal
    read: int
    written: int
    runs: int
    alike: bool
    warm: bool


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be sent.

    :param price: what one answer's usage costs on that day; None: unpriced.
    :param shared: the part that all requests have, parsed.
    :param own_bytes: of all own parts together, images left out; `image_tokens` of all images together.
    :param size_error: the standard error of these two as a part of them, where they are not measured but estimated.
    :param sample: requests whose tokens were counted; none where that was not possible, and `uncounted` says why.
    :param shared_tokens: of the shared part, as counted.
    :param primed: whether one request goes ahead of the rest and writes the shared part to the cache; `priming` says
        why, or why not.
    """

    model: str
    price: Callable[[Usage], Cost | None]
    requests: int
    batches: int
    shared: Mapping[str, Any]
    own_bytes: Decimal
    image_tokens: Decimal = NOTHING
    size_error: Decimal = NOTHING
    sample: tuple[Sampled, ...] = ()
    shared_tokens: int | None = None
    uncounted: str | None = None
    history: History | None = None
    primed: bool = False
    priming: str = ""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What it is likely to cost; None: the model has no known price.

    :param most_usd: at the very most: every answer as long as max_tokens allows, hardly any read of the cache.
    """

    requests: int
    low_usd: Decimal | None
    likely_usd: Decimal | None
    high_usd: Decimal | None
    most_usd: Decimal | None
    counted: int
    reasons: tuple[str, ...]


class _Cached(NamedTuple):
    """How many tokens of each request can be read from the cache, and what part of the requests does."""

    tokens: Span
    reads: Span  # best first


def forecast(work: Work) -> Forecast:
    """The range of what some work costs, with its reasons."""
    if not work.requests:
        return Forecast(0, Decimal(0), Decimal(0), Decimal(0), Decimal(0), 0, ("No request can be sent.",))
    text, reasons = _text(work)
    images = work.image_tokens / work.requests
    if images:
        reasons.append(f"The images have {images:,.0f} tokens a request by their pixels.")
    cached, words = _cached(work)
    reasons += words
    if work.priming:
        reasons.append(work.priming)
    output, words = _output(work)
    reasons += words
    if any(str(tool.get("type", "")).startswith("web_search") for tool in _dicts(work.shared.get("tools"))):
        reasons.append("Web searches cost extra, and are not in it: nobody knows how many there will be.")
    price = rates(work, text.likely + images)
    if price is None:
        reasons.append(f"The model {work.model} has no known price: what this costs is not known.")
        return Forecast(work.requests, None, None, None, None, len(work.sample), tuple(reasons))
    ends = [
        price.input * (text[at] + images - cached.tokens[at])
        + cached.tokens[at] * (cached.reads[at] * price.read + (1 - cached.reads[at]) * price.write)
        + price.output * output[at]
        for at in range(3)
    ]
    span = _narrowed(Span(min(ends), ends[1], max(ends)))
    ceiling = _max_tokens(work) or output.high
    most = price.input * (text.high + images - cached.tokens.high) + price.output * ceiling
    most += cached.tokens.high * (FEWEST_HITS * price.read + (1 - FEWEST_HITS) * price.write)
    low, likely, high, top = (
        Decimal(f"{each * work.requests:.6g}") for each in (*span, max(most, span.high * (1 + COUNT_ERROR)))
    )
    reasons.append(
        "At the very most: if every answer is as long as max_tokens allows"
        + (f", and only {FEWEST_HITS:.0%} of the requests read the cache." if cached.tokens.high else ".")
    )
    return Forecast(work.requests, low, likely, high, top, len(work.sample), tuple(reasons))


def _narrowed(span: Span) -> Span:
    """As wide as a range may be that still says something, around what is likely."""
    if span.high <= span.low * WIDEST:
        return span
    reach = WIDEST.sqrt() * (1 - ROUNDING)
    return Span(max(span.low, span.likely / reach), span.likely, min(span.high, span.likely * reach))


# -- input -------------------------------------------------------------------------------------------------------


def _text(work: Work) -> tuple[Span, list[str]]:
    """Tokens of a request's prompt without its images, on average."""
    mean = work.own_bytes / work.requests
    if not work.sample:
        size = mean + len(jsontext.dumps(dict(work.shared)))
        span = guesses.tokens_of_bytes(size, work.model)
        why = f" ({work.uncounted.rstrip('.')})" if work.uncounted else ""
        return span, [
            f"No tokens were counted{why}: {size:,.0f} bytes a request are taken for {span.low:,.0f} to "
            f"{span.high:,.0f} tokens."
        ]
    likely, error = _fitted(work.sample, mean)
    if len(work.sample) >= work.requests:
        error = NOTHING
    error += likely * work.size_error
    span = Span(max(Decimal(1), likely - SURE * error), likely, likely + SURE * error).around(COUNT_ERROR)
    return span, [
        f"The API counted {len(work.sample):,} of the {work.requests:,} requests: by that and by their bytes, "
        f"{span.low:,.0f} to {span.high:,.0f} tokens a request."
    ]


def _fitted(sample: Sequence[Sampled], size: Decimal) -> tuple[Decimal, Decimal]:
    """Tokens of a request of some size by those of a sample, and the standard error of that: a line through them."""
    count = len(sample)
    mean_size = Decimal(sum(one.size for one in sample)) / count
    mean = Decimal(sum(one.tokens for one in sample)) / count
    # A Decimal, as mypy will not have of a power.
    spread = Decimal(sum((one.size - mean_size) ** 2 for one in sample))
    together = Decimal(sum((one.size - mean_size) * (one.tokens - mean) for one in sample))
    slope = together / spread if spread else NOTHING
    left = Decimal(sum((one.tokens - mean - slope * (one.size - mean_size)) ** 2 for one in sample))
    away = Decimal((size - mean_size) ** 2) / spread if spread else NOTHING
    error = left / max(1, count - 2) * (1 / Decimal(count) + away)
    return max(Decimal(1), mean + slope * (size - mean_size)), error.sqrt()


def _cached(work: Work) -> tuple[_Cached, list[str]]:
    """What of each request can come from the cache."""
    found = cached_tokens(work)
    none = _Cached(Span(NOTHING, NOTHING, NOTHING), Span(NOTHING, NOTHING, NOTHING))
    if found is None:
        return none, ["Nothing is cached: the part that all requests share carries no cache mark."]
    least = min_cacheable(work.model)
    if work.shared_tokens is not None:
        tokens = Span(found, found, found).around(COUNT_ERROR)
    else:
        tokens = guessed_tokens(work.shared, work.model)
    if least is None or tokens.likely < least:
        about = f"of about {tokens.likely:,.0f} tokens"
        if least is None:
            return none, [
                f"Nothing is taken to be cached: what the model caches of a shared part {about} is not known."
            ]
        return none, [f"Nothing is cached: the shared part {about} is under the {least:,} that the model needs."]
    hits, whence = _hits(work, tokens.likely)
    count, warm = work.requests, work.history is not None and work.history.warm
    sure = [(count - first) * rate for rate, first in zip(hits, _first(work), strict=True)]
    # Of few requests, the odd one that misses is less likely than its share of them.
    sure[1] = min(max(sure[1] + Decimal(1) / 3, sure[2]), sure[0], Decimal(count - _first(work)[1]))
    written = "may be cached still" if warm else "is written at least once"
    return _Cached(tokens, Span(*(reads / count for reads in sure))), [
        f"The shared part of about {tokens.likely:,.0f} tokens is cached (at least {least:,} are needed) "
        f"and {written}: {whence}."
    ]


def cached_tokens(work: Work) -> Decimal | None:
    """Tokens of the shared part up to its cache mark, as far as they are counted; None: it has none."""
    part = marked_part(work.shared)
    return (work.shared_tokens or 0) * part if part else None


def guessed_tokens(shared: Mapping[str, Any], model: str) -> Span:
    """The same where nothing was counted, by its bytes."""
    size = len(jsontext.dumps({name: shared.get(name) for name in ("tools", "system")}))
    return guesses.tokens_of_bytes(marked_part(shared) * size, model)


def at_once(work: Work) -> int:
    """Requests that begin before the first of their batch has written what was in no cache."""
    return min(work.requests, work.batches * max(1, ceil(COLD * work.requests / max(1, work.batches))))


def _first(work: Work) -> tuple[int, int, int]:
    """Requests that write it because nobody has before: at best, likely, at worst one of each batch."""
    if work.primed:
        return (1, 1, 1)
    warm = work.history is not None and work.history.warm
    return (0 if warm else 1, 0 if warm else 1, min(work.requests, work.batches))


def _hits(work: Work, tokens: Decimal) -> tuple[tuple[Decimal, Decimal, Decimal], str]:
    """Best, likely and worst part of the other requests that read it, and whence that is known."""
    # Where one request goes ahead, none of the others is too early.
    best, likely, worst = (rate + COLD for rate in HITS) if work.primed else HITS
    before, seen = work.history, work.requests
    whence = f"{worst:.0%} to {best:.0%} of the requests are taken to read it: the API promises none"
    if before is not None and before.read + before.written:
        missed = max(NOTHING, before.written - before.runs * tokens)
        likely = before.read / (before.read + missed) if before.read else NOTHING
        best, worst = likely + SCARCE, likely - SCARCE
        seen = min(seen, before.answers)
        whence = f"before, {likely:.0%} of the requests after the first one read it"
    chance = (likely * (1 - likely) / seen).sqrt()
    return (min(Decimal(1), best + chance), likely, max(NOTHING, worst - 2 * chance)), whence


def marked_part(shared: Mapping[str, Any]) -> Decimal:
    """What part of the shared part comes before its last cache mark, by bytes; 0 when it has none."""
    system = shared.get("system")
    blocks = [*_dicts(shared.get("tools")), *_dicts([{"text": system}] if isinstance(system, str) else system)]
    sizes = [len(jsontext.dumps(block)) for block in blocks]
    marks = [at for at, block in enumerate(blocks) if block.get("cache_control")]
    return Decimal(sum(sizes[: marks[-1] + 1])) / sum(sizes) if marks else NOTHING


# -- output ------------------------------------------------------------------------------------------------------


def _output(work: Work) -> tuple[Span, list[str]]:
    """Tokens of an answer on average."""
    ceiling = _max_tokens(work) or Decimal("Infinity")
    before = work.history
    if before is not None:
        chance = SPREAD / Decimal(min(work.requests, before.answers)).sqrt()
        margin = min(WIDE, (NARROW if before.alike else 2 * NARROW) + chance)
        span = Span(min(before.least, before.output), before.output, max(before.most, before.output)).around(margin)
        span = Span(*(min(each, ceiling) for each in span))
        same = "with the same settings" if before.alike else "with other settings"
        return span, [
            f"{before.answers:,} answers of this task and model {same} had {before.output:,.0f} tokens each: "
            f"{span.low:,.0f} to {span.high:,.0f} are expected."
        ]
    span = guesses.output_tokens(work.shared, work.model)
    span = Span(*(min(each, ceiling) for each in span))
    return span, [
        f"This model has answered nothing of this task yet: {span.low:,.0f} to {span.high:,.0f} tokens an answer are "
        f"a guess from the form of the answer; max_tokens allows {ceiling:,.0f}."
    ]


# -- prices ------------------------------------------------------------------------------------------------------


class Rates(NamedTuple):
    """USD per token in a batch."""

    input: Decimal
    write: Decimal
    read: Decimal
    output: Decimal


def rates(work: Work, prompt: Decimal) -> Rates | None:
    """Prices of the day for prompts of about that length; None: unknown."""
    geo = work.shared.get("inference_geo")
    length = max(1, round(prompt))

    def per_token(**tokens: int) -> Decimal | None:
        # In the tier of a prompt as long as these are, whatever is measured.
        usage = {"input": 0, "write_5m": 0, "write_1h": 0, "read": 0, "output": 0} | tokens
        priced = work.price(Usage(**usage, web_searches=0, geo=geo if isinstance(geo, str) else None))
        return None if priced is None else priced.batch

    of_input = per_token(input=length)
    if of_input is None:
        return None
    write = per_token(write_1h=length) if for_an_hour(work.shared) else per_token(write_5m=length)
    read, whole = per_token(read=length), per_token(input=length, output=BULK)
    assert write is not None and read is not None and whole is not None
    return Rates(of_input / length, write / length, read / length, (whole - of_input) / BULK)


def for_an_hour(shared: Mapping[str, Any]) -> bool:
    """Whether what is cached is cached for an hour."""
    blocks = [*_dicts(shared.get("tools")), *_dicts(shared.get("system"))]
    return any((block.get("cache_control") or {}).get("ttl") == "1h" for block in blocks)


def _max_tokens(work: Work) -> Decimal | None:
    """The most tokens that an answer may have."""
    most = work.shared.get("max_tokens")
    return Decimal(most) if type(most) is int and most > 0 else None


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list | tuple) else []
