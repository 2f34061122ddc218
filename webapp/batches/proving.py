"""Whose batch of the API it is: the first lines of its results tell, before anybody is asked.
The search for an unknown POST looks into its candidates here; nothing is stored, and no transaction is open meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from webapp import db
from webapp.errors import ApiError
from webapp.gateway import ApiBatch, Gateway
from webapp.records import jsontext

# All lines of a batch are of one POST, so one would do; some more, since a stream may hold what belongs to nobody.
MOST_LINES = 100
MOST_BYTES = 8_000_000


class Whose(StrEnum):
    OURS = "ours"  # a line carries a custom_id of this very batch
    STRANGERS = "strangers"  # there are lines, and none is of this batch
    UNKNOWN = "unknown"  # not ended, or no line that could be read


@dataclass(frozen=True, slots=True)
class Proof:
    """Whose a batch is, with one of the custom_ids that were read in it."""

    whose: Whose
    custom_id: str | None = None


def look_into(gateway: Gateway, candidate: ApiBatch, batch_id: int) -> Proof:
    """Read the first lines of a batch of the API that has ended, and say whether they answer one of ours.

    :param batch_id: our batch that it may be.
    """
    if not candidate.ended:
        return Proof(Whose.UNKNOWN)
    found, whole = _first_ids(gateway, candidate)
    if not found:
        return Proof(Whose.UNKNOWN)
    with db.transaction() as tx:
        ours = db.scalar(
            tx,
            "SELECT custom_id FROM requests WHERE batch_id = :batch AND custom_id = ANY(CAST(:ids AS text[])) LIMIT 1",
            batch=batch_id,
            ids=db.array(found),
        )
    if ours is not None:
        return Proof(Whose.OURS, ours)
    # A stream that broke off may have held ours a line later.
    return Proof(Whose.STRANGERS if whole else Whose.UNKNOWN, found[0])


def _first_ids(gateway: Gateway, batch: ApiBatch) -> tuple[list[str], bool]:
    """The custom_ids of the first lines that can be read, and whether the stream went on as far as was looked."""
    found: list[str] = []
    size = 0
    try:
        with gateway.results(batch) as lines:
            for raw in islice(lines, MOST_LINES):
                identifier = _custom_id(raw)
                if identifier is not None:
                    found.append(identifier)
                size += len(raw)
                if size > MOST_BYTES:
                    break
    except ApiError:
        return found, False
    return found, True


def _custom_id(raw: bytes) -> str | None:
    """The custom_id of a line; None for what is no line of results."""
    try:
        identifier = jsontext.loads(raw)["custom_id"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    # Others are no ids, and some no text for a query.
    return identifier if isinstance(identifier, str) and identifier.isascii() and identifier.isprintable() else None
