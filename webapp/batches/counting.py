"""Requests as an estimate looks at them: their bytes and images apart, and a few of them counted by the API.
The step `plan`, previews and `--dry-run` call it; never inside a transaction.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from webapp.batches import encoding
from webapp.batches.building import NO_TOKEN
from webapp.errors import ApiError, ApiUnclear
from webapp.gateway import Gateway
from webapp.money import guesses
from webapp.money.prediction import Sampled
from webapp.records import jsontext

COUNTED = 6  # requests that the API is asked about, and the shared part alone: its limits allow hundreds a minute
FEWEST = 3
LONGEST = 2_000_000  # bytes of a request that is sent to be counted
STEP_SECONDS = 20.0  # that a step counts
PAGE_SECONDS = 4.0  # ... and a page
CALL_SECONDS = 5.0
# What of a request the API counts; it refuses anything else.
TAKEN = ("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config", "cache_control")
INSTEAD = {"type": "text", "text": "."}  # of an image, which is counted by its pixels

Count = Callable[[bytes], int]


@dataclass(frozen=True, slots=True)
class Piece:
    """One request's own part.

    :param own: parsed, with a stop in the place of each image.
    :param size: its bytes as sent, without those of its images.
    """

    own: dict[str, Any]
    size: int
    image_tokens: int


@dataclass(frozen=True, slots=True)
class Counts:
    """What the API counted; `trouble` says why it counted nothing, or not all."""

    sample: tuple[Sampled, ...] = ()
    shared_tokens: int | None = None
    trouble: str | None = None


def piece(row: Any, own: str, size: int, *, token: str, model: str) -> Piece:
    """One request as it is looked at.

    :param row: with `image` (its sha256 in hex, or None), `width`, `height`, and `size`, its bytes.
    :param size: the bytes of its own part as sent.
    """
    marks = re.compile(f"blob:{token}:[0-9a-f]{{64}}")
    parsed, images = _without_images(jsontext.loads(own), marks)
    if not images:
        return Piece(parsed, size, 0)
    size -= images * 4 * ((row.size + 2) // 3)
    return Piece(parsed, size, images * guesses.tokens_of_image(row.width or 0, row.height or 0, model))


def _without_images(value: Any, marks: re.Pattern[str]) -> tuple[Any, int]:
    """A value without the images in it, and how many those are."""
    if isinstance(value, dict):
        source = value.get("source")
        if isinstance(source, dict) and isinstance(source.get("data"), str) and marks.fullmatch(source["data"]):
            return INSTEAD, 1
        found = {name: _without_images(each, marks) for name, each in value.items()}
        return {name: each for name, (each, _) in found.items()}, sum(count for _, count in found.values())
    if isinstance(value, list):
        listed = [_without_images(each, marks) for each in value]
        return [each for each, _ in listed], sum(count for _, count in listed)
    return value, 0


def within(gateway: Callable[[], Gateway], seconds: float) -> Count:
    """Asks the API for counts, until so many seconds are over.

    :param gateway: makes it, or gives the one there is.
    """
    end = time.monotonic() + seconds

    def count(request: bytes) -> int:
        left = end - time.monotonic()
        if left <= 0:
            raise ApiUnclear("The API took too long over it.")
        return gateway().count_tokens(request, seconds=min(left, CALL_SECONDS))

    return count


def counted(count: Count, shared: dict[str, Any], pieces: Sequence[Piece]) -> Counts:
    """Let the API count the shared part and some requests, from short to long ones."""
    sample: list[Sampled] = []
    alone = None
    try:
        alone = count(_body(shared, {"messages": [{"role": "user", "content": INSTEAD["text"]}]}))
        for one in spread(pieces):
            sample.append(Sampled(one.size, count(_body(shared, one.own))))
    except ApiError as error:
        # Of too few, nobody could tell how different they are.
        return Counts(tuple(sample) if len(sample) >= FEWEST else (), alone, str(error))
    return Counts(tuple(sample), alone)


def spread(pieces: Sequence[Piece]) -> list[Piece]:
    """So many as are counted, evenly from the short ones to the long ones."""
    ordered = sorted((one for one in pieces if one.size <= LONGEST), key=lambda one: one.size)
    return [ordered[at] for at in ranks(len(ordered))]


def ranks(count: int) -> list[int]:
    """Which of so many in their order are counted, from 0: the middles of equal parts."""
    parts = min(count, COUNTED)
    return [(2 * part + 1) * count // (2 * parts) for part in range(parts)]


def _body(shared: dict[str, Any], own: dict[str, Any]) -> bytes:
    params = {**shared, **own}
    return jsontext.dumps({name: params[name] for name in TAKEN if name in params})


def line_bytes(shared_bytes: int, own_bytes: int, requests: int) -> int:
    """Bytes of so many request lines, with the commas between them, that have so many in their own parts together."""
    one = encoding.line_bytes(len(encoding.custom_id(1_000_000, NO_TOKEN, 1)), shared_bytes, 0) + 1
    return requests * one + own_bytes
