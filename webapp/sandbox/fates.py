"""How each request of a batch fares: drawn when it is accepted, settled when the batch ends.

The intake draws, the lifecycle counts, the results show it row by row.
"""

from __future__ import annotations

from enum import IntEnum

from .config import SandboxConfig
from .store import Batch, Row

_CHANCES = 1 << 32


class Fate(IntEnum):
    """How a request fares. The numbers are what the index file holds."""

    SUCCEEDED = 0
    #: Its params do not pass the checks.
    REJECTED = 1
    #: It fails by the configured shares.
    API_ERROR = 2
    OVERLOADED = 3
    INVALID = 4
    EXPIRED = 5
    MISSING = 6
    #: It succeeds, with trouble in the answer.
    NASTY = 7
    CANCELED = 8


#: Which of a batch's counts a fate falls under.
COUNTED_AS = {
    Fate.SUCCEEDED: "succeeded",
    Fate.NASTY: "succeeded",
    Fate.REJECTED: "errored",
    Fate.API_ERROR: "errored",
    Fate.OVERLOADED: "errored",
    Fate.INVALID: "errored",
    Fate.MISSING: "errored",
    Fate.EXPIRED: "expired",
    Fate.CANCELED: "canceled",
}


def draw_fate(config: SandboxConfig, chance: float) -> Fate:
    """The fate of a request whose params are fine, by the configured shares and a chance in [0, 1)."""
    shares = (
        (Fate.API_ERROR, config.errored_share),
        (Fate.OVERLOADED, config.overloaded_share),
        (Fate.INVALID, config.invalid_share),
        (Fate.EXPIRED, config.expired_share),
        (Fate.MISSING, config.missing_share),
        (Fate.NASTY, config.nasty_share),
    )
    for fate, share in shares:
        if chance < share:
            return fate
        chance -= share
    return Fate.SUCCEEDED


def settle_fate(batch: Batch, row: Row) -> Fate:
    """The fate of a row of a batch that has ended, which may have been cut short."""
    if batch.processed < 1.0 and row.chance >= batch.processed * _CHANCES:
        return Fate.CANCELED if batch.ending == "canceled" else Fate.EXPIRED
    return Fate(row.fate)


def count_fates(batch: Batch, rows: list[Row]) -> dict[str, int]:
    """The counts of a batch that has ended."""
    counts = dict.fromkeys(("succeeded", "errored", "canceled", "expired"), 0)
    for row in rows:
        counts[COUNTED_AS[settle_fate(batch, row)]] += 1
    return counts
