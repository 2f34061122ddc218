"""Whether one request of a run goes ahead of the rest, to write the shared part to the prompt cache: by the numbers.
Pure: estimates ask it with what they know of the requests; the road lets the one go first where it says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from webapp.money.prediction import Work, at_once, cached_tokens, for_an_hour, guessed_tokens, rates
from webapp.money.prices import min_cacheable

LEAST_USD = Decimal("0.50")  # that it saves, or nobody waits for it: it may take an hour


class Prime(StrEnum):
    """What whoever starts a run wants of it."""

    AUTO = "auto"  # by the numbers
    ON = "on"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a run is primed, and a sentence that says why; empty where there is nothing to be said of it."""

    primed: bool
    words: str


def decide(work: Work, wanted: Prime = Prime.AUTO) -> Decision:
    """Whether it pays that one request writes the shared part before the rest is sent.

    Without it, every request that begins before the first has written the shared part writes it too, in each batch.
    With it there is one write, and the rest waits until a batch of one request has ended.
    """
    if work.requests < 2:
        return _no("there is nothing to send after one request") if wanted == Prime.ON else Decision(False, "")
    if wanted == Prime.ON:
        return Decision(True, "It was asked for that one request goes ahead and writes the shared part to the cache.")
    if wanted == Prime.OFF:
        return _no("it was asked for that all is sent at once")
    tokens, least = cached_tokens(work), min_cacheable(work.model)
    counted = work.shared_tokens is not None
    known = tokens if counted else guessed_tokens(work.shared, work.model).likely
    if tokens is None or known is None or least is None or known < least:
        return Decision(False, "")  # nothing is cached: the estimate says why
    if not counted:
        return _no("the tokens of the shared part could not be counted")
    if not for_an_hour(work.shared):
        return _no("the cache is asked to keep the shared part for five minutes, and a batch may take longer")
    if work.history is not None and work.history.warm:
        return _no("the same shared part was sent lately, and may be in the cache still")
    return _by_the_numbers(work, tokens)


def _by_the_numbers(work: Work, tokens: Decimal) -> Decision:
    # In the tier of a prompt that is at least as long as its shared part.
    price = rates(work, tokens)
    if price is None:
        return _no("the model has no known price")
    misses = at_once(work)
    saved = (misses - 1) * tokens * (price.write - price.read)
    many = f"about {misses:,} of the requests begin before the first of them has written it"
    if misses < 2:
        return _no(f"of {work.requests:,} requests hardly one begins before the first has written the shared part")
    if saved < LEAST_USD:
        return _no(f"{many}, and that it is written once saves only {saved:.2f} USD")
    return Decision(
        True,
        f"One request goes ahead and writes the shared part of about {tokens:,.0f} tokens to the cache. Were all sent "
        f"at once, {many} and would write it too, for {tokens * price.write:.6f} USD each where reading it takes "
        f"{tokens * price.read:.6f}: that it waits saves about {saved:.2f} USD.",
    )


def _no(why: str) -> Decision:
    return Decision(False, f"No request goes ahead to write the cache: {why}.")
