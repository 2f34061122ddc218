"""One figure as `make bench` prints it, and the limit that stands beside it.
The measures make figures; only `__main__` prints them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import orjson


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value.

    :param limit: what the same work takes without the product, or the most that is allowed (of `times`: the least);
        None: there is none.
    """

    name: str
    value: float
    unit: str
    limit: float | None = None

    def line(self) -> str:
        """The figure as one JSON object."""
        ratio = round(self.value / self.limit, 3) if self.limit else None
        limit = None if self.limit is None else round(self.limit, 1)
        fields = {"name": self.name, "value": round(self.value, 1), "unit": self.unit}
        return orjson.dumps({**fields, "limit": limit, "ratio_to_limit": ratio}).decode()


def rate(name: str, requests: int, seconds: Sequence[float], limit: Sequence[float] = ()) -> Figure:
    """Requests per second by the median of several rounds; `limit` holds the seconds of the limit's rounds."""
    return Figure(name, requests / median(seconds), "req/s", requests / median(limit) if limit else None)


def times(
    name: str, requests: int, seconds: Sequence[float], lines: int, rival: Sequence[float], least: float | None = None
) -> Figure:
    """How many times as fast a step is as its rival, which was timed over fewer lines in the same rounds.

    :param least: what it must be, as the limit; None: it is only told.
    """
    return Figure(name, median(rival) / lines / (median(seconds) / requests), "times", least)
