"""What a check has seen of a plugin, point by point. The checks make findings, the command line shows them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

SHOWN = 4  # faults of one kind that are told one by one


class Level(StrEnum):
    """How a point came out."""

    OK = "ok"
    WARNING = "warning"  # it works, and costs more or does less than it could; or it could not be tried
    PROBLEM = "problem"  # it breaks the contract


@dataclass(frozen=True, slots=True)
class Finding:
    """One point: what of the plugin it is about, and what was seen, as a sentence."""

    level: Level
    about: str
    words: str


@dataclass(frozen=True, slots=True)
class Book:
    """Makes the findings about one thing."""

    about: str

    def ok(self, words: str) -> Finding:
        return Finding(Level.OK, self.about, words)

    def warning(self, words: str) -> Finding:
        return Finding(Level.WARNING, self.about, words)

    def problem(self, words: str) -> Finding:
        return Finding(Level.PROBLEM, self.about, words)

    def problems(self, faults: Iterable[str]) -> Iterator[Finding]:
        """A problem for each of the first faults, and one for how many there are beyond."""
        found = list(dict.fromkeys(faults))
        yield from map(self.problem, found[:SHOWN])
        if len(found) > SHOWN:
            yield self.problem(f"and {len(found) - SHOWN} more of the kind.")
