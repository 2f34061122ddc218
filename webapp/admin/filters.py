"""What a list is asked for in its address: filters and the place to start from. Lists read it with `Asked`.
A value that makes no sense becomes a sentence on the page, and the list is shown without it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from flask import request, url_for

from webapp.records.escapes import one_line

MOST_DIGITS = 18  # of an id: what a bigint always holds
LAST = 10**MOST_DIGITS
LONGEST = 500  # characters of a search


@dataclass
class Asked:
    """The filters of one request.

    :param problems: a sentence for each value that was left out.
    :param given: the values that count, by name.
    """

    problems: list[str] = field(default_factory=list)
    given: dict[str, Any] = field(default_factory=dict)

    def choice(self, name: str, options: Collection[str]) -> str | None:
        """One of some words, or None."""
        value = request.args.get(name, "")
        if value and value not in options:
            self.leave_out(name, value, f"it is one of: {', '.join(options)}")
            return None
        return self._take(name, value)

    def row_id(self, name: str) -> int | None:
        """The id of a row, or None."""
        value = request.args.get(name, "").strip()
        if not value:
            return None
        if not value.isascii() or not value.isdigit() or len(value) > MOST_DIGITS:
            self.leave_out(name, value, "it is a number")
            return None
        self.given[name] = int(value)
        return int(value)

    def text(self, name: str) -> str | None:
        """Words to look for, or None."""
        value = request.args.get(name, "").strip()
        if "\0" in value or len(value) > LONGEST:
            self.leave_out(name, value, f"it is text of at most {LONGEST} characters")
            return None
        return self._take(name, value)

    def url(self, **changes: Any) -> str:
        """The address of this list with these filters; changes replace, None takes away."""
        values = {name: value for name, value in (self.given | changes).items() if value is not None}
        return url_for(str(request.endpoint), **values)

    def _take(self, name: str, value: str) -> str | None:
        if not value:
            return None
        self.given[name] = value
        return value

    def leave_out(self, name: str, value: str, expected: str) -> None:
        """Say that a value makes no sense, and what would."""
        self.problems.append(f"The filter {name} cannot be “{one_line(value, 60)}”: {expected}. It was left out.")


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page of a list starts: after an id going down (older), or after an id going up (newer).

    Pages are found by id, never by number: the ten-thousandth costs what the first does.
    """

    older: int | None
    newer: int | None

    @classmethod
    def of(cls, asked: Asked) -> Cursor:
        """Read from the address, and taken out of the filters that links repeat."""
        found = cls(asked.row_id("older"), asked.row_id("newer"))
        asked.given.pop("older", None)
        asked.given.pop("newer", None)
        return found

    @property
    def up(self) -> bool:
        return self.newer is not None

    @property
    def start(self) -> int:
        """The id that the page starts after."""
        if self.newer is not None:
            return self.newer
        return LAST if self.older is None else self.older

    def sql(self, column: str) -> str:
        """The condition on an id column; binds :start."""
        return f"{column} > :start" if self.up else f"{column} < :start"

    def order(self, column: str) -> str:
        return f"{column} ASC" if self.up else f"{column} DESC"


@dataclass(frozen=True, slots=True)
class Found:
    """What a query found from a cursor on, in its order; one row more than fits says that there is more.

    :param stopped_at: the id at which a look at a limited number of rows ended before the page was full.
    """

    rows: list[Any]
    stopped_at: int | None = None


@dataclass(frozen=True, slots=True)
class Slice:
    """One page of a list, newest first, and where its neighbours start (None: there is none).

    :param cut_short: the look ended before the page was full; going on looks further.
    """

    rows: list[Any]
    newer: int | None
    older: int | None
    cut_short: bool = False


def page_of(fetch: Callable[[Cursor], Found], cursor: Cursor, size: int) -> Slice:
    """The page at a cursor. Going up beyond the newest row shows the first page, whole."""
    found = fetch(cursor)
    more = len(found.rows) > size
    if cursor.up and not more and found.stopped_at is None:
        return page_of(fetch, Cursor(None, None), size)
    rows = found.rows[:size]
    onward = rows[-1].id if more else found.stopped_at
    cut_short = found.stopped_at is not None and not more
    if cursor.up:
        below = rows[0].id if rows else cursor.start + 1
        return Slice(rows[::-1], onward, below if cursor.newer else None, cut_short)
    above = (rows[0].id if rows else cursor.start - 1) if cursor.older is not None else None
    return Slice(rows, above, onward, cut_short)
