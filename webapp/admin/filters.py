"""What a list is asked for in its address: filters and the place to start from. Lists read it with `Asked`.
A value that makes no sense becomes a sentence on the page, and the list is shown without it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import request, url_for

from webapp.records.escapes import one_line

MOST_DIGITS = 18  # of an id: what a bigint always holds
LAST = 10**MOST_DIGITS
LONGEST = 500  # characters of a search
FIRST_YEAR, LAST_YEAR = 1900, 2999


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

    def days(self) -> tuple[datetime | None, datetime | None]:
        """From the start of the day `from` until the end of the day `to`, both in UTC and either left open."""
        since, last = self._day("from"), self._day("to")
        if since and last and last < since:
            self.given.pop("to")
            self.problems.append("The filter to is before from: nothing lies between them. It was left out.")
            last = None
        return since, last + timedelta(days=1) if last else None

    def _day(self, name: str) -> datetime | None:
        value = request.args.get(name, "").strip()
        if not value:
            return None
        try:
            day = datetime.strptime(value, "%Y-%m-%d").replace(tzinfo=UTC)
        except ValueError:
            day = None
        if day is None or not FIRST_YEAR <= day.year <= LAST_YEAR:
            self.leave_out(name, value, "it is a day such as 2026-11-30")
            return None
        self.given[name] = day.date().isoformat()
        return day

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
    """Where a page of a list starts: after a row (older), or before one, going back (newer; 0: the last page).

    Pages are found by id, never by number: the ten-thousandth costs what the first does.

    :param rising: the list is in the order of its ids, which is oldest first, and `older` leads to newer rows.
    """

    older: int | None
    newer: int | None
    rising: bool = False

    @classmethod
    def of(cls, asked: Asked, *, rising: bool = False) -> Cursor:
        """Read from the address, and taken out of the filters that links repeat."""
        found = cls(asked.row_id("older"), asked.row_id("newer"), rising)
        asked.given.pop("older", None)
        asked.given.pop("newer", None)
        return found

    @property
    def back(self) -> bool:
        """Whether it goes back through the list."""
        return self.newer is not None

    @property
    def up(self) -> bool:
        """Whether it goes to higher ids."""
        return self.back != self.rising

    @property
    def start(self) -> int:
        """The id that the page starts after; at either end of the list, one that no row has."""
        return self.newer or self.older or (0 if self.up else LAST)

    def sql(self, column: str) -> str:
        """The condition on an id column; binds :start."""
        return f"{column} > :start" if self.up else f"{column} < :start"

    def order(self, column: str) -> str:
        return f"{column} ASC" if self.up else f"{column} DESC"

    def sql_by(self, table: str, alias: str, column: str) -> str:
        """As `sql`, for a list that is ordered by another column first: after the row with the id :start."""
        if self.start in (0, LAST):
            return "CAST(:start AS bigint) IS NOT NULL"
        there = f"(SELECT {column}, id FROM {table} WHERE id = :start)"  # noqa: S608 - names that we gave it
        return f"({alias}.{column}, {alias}.id) {'>' if self.up else '<'} {there}"

    def order_by(self, alias: str, column: str) -> str:
        return f"{self.order(f'{alias}.{column}')}, {self.order(f'{alias}.id')}"


@dataclass(frozen=True, slots=True)
class Found:
    """What a query found from a cursor on, in its order; one row more than fits says that there is more.

    :param stopped_at: the id at which a look at a limited number of rows ended before the page was full.
    """

    rows: list[Any]
    stopped_at: int | None = None


@dataclass(frozen=True, slots=True)
class Slice:
    """One page of a list, in its order, and where its neighbours start (None: there is none).

    :param cut_short: the look ended before the page was full; going on looks further.
    """

    rows: list[Any]
    newer: int | None
    older: int | None
    cut_short: bool = False


def page_of(fetch: Callable[[Cursor], Found], cursor: Cursor, size: int) -> Slice:
    """The page at a cursor. Going back beyond the first row shows the first page, whole."""
    found = fetch(cursor)
    more = len(found.rows) > size
    if cursor.back and not more and found.stopped_at is None:
        return page_of(fetch, replace(cursor, older=None, newer=None), size)
    rows = found.rows[:size]
    onward = rows[-1].id if more else found.stopped_at
    cut_short = found.stopped_at is not None and not more
    behind = rows[0].id if rows else cursor.start + (1 if cursor.up else -1)
    if cursor.back:
        return Slice(rows[::-1], onward, behind if cursor.newer else None, cut_short)
    return Slice(rows, behind if cursor.older is not None else None, onward, cut_short)
