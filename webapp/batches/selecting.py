"""Which requests are meant: the filters of a list, a run, a batch, a cause of failures, one request, as one value.
What works on a selection (resubmission, processing again, rebuilding, exports) keeps it as JSON and asks with `fits`;
whoever adds a filter adds it to `Meant` and, with its condition, to `_FILTERS`, and all of them know it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection

from webapp import db
from webapp.records.escapes import one_line

LOOK = 50_000  # rows that a count reads before it says that there are more
TABLES = 6  # that are looked into for each failure, where there are filters
MOST_RUNS = 500  # that one click acts on
CAUSE = 240  # characters at the beginning of what is said of a failure: what makes it one cause
_SUBJECT_OF_ID = re.compile(r"(\d{1,18})-")  # a custom_id begins with the subject's id

# What is said of a request r of an item i that failed, or whose output is no use.
_ERROR = """coalesce(
    (SELECT told.reason FROM outputs told WHERE told.request_id = r.id),
    (SELECT came.error_message FROM results came WHERE came.request_id = r.id),
    CASE WHEN i.attempts = r.attempt THEN i.error END)"""
_OUTPUT = "EXISTS (SELECT 1 FROM outputs made WHERE made.request_id = r.id{})"
_INVALID = _OUTPUT.format(" AND made.state = 'invalid'")
_BATCH = "EXISTS (SELECT 1 FROM batches cut WHERE cut.id = r.batch_id AND cut.created_at {})"

# Each filter f: its type, and when a request r of an item i fits it. An item that never had a request (r: NULLs) is
# meant by its run, class and cause.
_FILTERS = {
    "run_id": ("bigint", "i.run_id = f.run_id"),
    "batch_id": ("bigint", "r.batch_id = f.batch_id"),
    "request_id": ("bigint", "r.id = f.request_id"),
    "state": ("text", "r.state = f.state"),
    "failure": (
        "text",
        "r.failure_class = f.failure OR (i.failure_class = f.failure AND (r.id IS NULL OR r.attempt = i.attempts)) "
        f"OR (f.failure = 'output' AND {_INVALID})",
    ),
    "words": (
        "text",
        "r.custom_id = f.words OR (i.subject_id = f.subject AND starts_with(r.custom_id, f.words)) "
        "OR EXISTS (SELECT 1 FROM subjects keyed WHERE keyed.id = i.subject_id AND keyed.key = f.words)",
    ),
    "error": ("text", f"position(lower(f.error) IN lower({_ERROR})) > 0"),
    "cause": (
        "text",
        f"left(coalesce({_ERROR}, ''), {CAUSE}) = f.cause OR (coalesce(r.attempt = i.attempts, true) "
        f"AND left(coalesce(i.error, ''), {CAUSE}) = f.cause)",
    ),
    "task": ("text", "EXISTS (SELECT 1 FROM runs tasked WHERE tasked.id = i.run_id AND tasked.task = f.task)"),
    "since": ("timestamptz", _BATCH.format(">= f.since")),
    "until": ("timestamptz", _BATCH.format("< f.until")),
    "outputs": ("boolean", f"NOT f.outputs OR {_OUTPUT.format('')}"),
    "output_state": ("text", _OUTPUT.format(" AND made.state = f.output_state")),
    "within": ("text", _OUTPUT.format(" AND position(lower(f.within) IN lower(made.value::text)) > 0")),
}
_FIELDS = ", ".join(f"{name} {kind}" for name, (kind, _) in _FILTERS.items()) + ", subject bigint"
_FIT = " AND ".join(f"(f.{name} IS NULL OR {condition})" for name, (_, condition) in _FILTERS.items())


def fits(chosen: str) -> str:
    """The condition that a request r of an item i (r: NULLs where it has none yet) fits filters.

    :param chosen: what holds them: a bind or a column, of `Meant.as_json`. A scalar, which no planner turns round.
    """
    return f"(SELECT {_FIT} FROM json_to_record(CAST({chosen} AS json)) AS f({_FIELDS}))"  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class Meant:
    """Filters; what fits them all is meant. None is no filter.

    :param failure: a class of failures.
    :param words: a whole key or custom_id, or how a custom_id begins.
    :param error: words within what is said of a failure.
    :param cause: how that begins, to the letter, as long as `CAUSE`; empty: nothing is said.
    :param since: when its batch was cut, at the earliest.
    :param until: likewise, and before.
    :param outputs: only what has an output.
    :param within: words within the output.
    """

    run_id: int | None = None
    batch_id: int | None = None
    request_id: int | None = None
    state: str | None = None
    failure: str | None = None
    words: str | None = None
    error: str | None = None
    cause: str | None = None
    task: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    outputs: bool | None = None
    output_state: str | None = None
    within: str | None = None

    @property
    def given(self) -> dict[str, Any]:
        """The filters that there are, by name."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in values.items() if value is not None and value is not False}

    def as_json(self) -> str:
        """For `fits`."""
        values = {name: one.isoformat() if isinstance(one, datetime) else one for name, one in self.given.items()}
        return json.dumps(values | {"subject": self._subject})

    @property
    def _subject(self) -> int | None:
        begins = _SUBJECT_OF_ID.match(self.words or "")
        return int(begins[1]) if begins else None

    @property
    def whole_run(self) -> bool:
        """Whether all of one run is meant."""
        return set(self.given) == {"run_id"}

    @property
    def within_a_run(self) -> bool:
        """Whether nothing of more than one run can be meant."""
        return any(one is not None for one in (self.run_id, self.batch_id, self.request_id))

    def told(self) -> str:
        """The filters within a run in words, for events and pages; empty when there are none."""
        told = []
        for name, value in self.given.items():
            if name == "cause":
                told.append(f"cause “{one_line(value, 80)}”" if value else "no cause given")
            elif name not in ("run_id", "outputs"):
                shown = f"{value:%Y-%m-%d %H:%M} UTC" if isinstance(value, datetime) else one_line(str(value), 80)
                told.append(f"{_NAMES.get(name, name)} {shown}")
        return ", ".join(told)


def read(chosen: str) -> Meant:
    """What `as_json` wrote."""
    values = json.loads(chosen)
    for name in ("since", "until"):
        if name in values:
            values[name] = datetime.fromisoformat(values[name])
    return Meant(**{one.name: values[one.name] for one in fields(Meant) if one.name in values})


_NAMES = {
    "batch_id": "batch",
    "request_id": "request",
    "failure": "class",
    "words": "key or custom_id",
    "output_state": "output",
    "since": "cut since",
    "until": "cut before",
}

# Of items i: there is a request to send again. Those that were never built have none.
SENDABLE = "(i.attempts > 0 OR i.state = 'stopped')"
LATEST = "LEFT JOIN requests r ON r.item_id = i.id AND r.attempt = i.attempts"
# The items that words lead to, each way by an index.
BY_WORDS = """
    SELECT item_id FROM requests WHERE custom_id = :words
    UNION SELECT id FROM items WHERE subject_id = :subject
    UNION SELECT named.id FROM datasets d JOIN subjects s ON s.dataset_id = d.id AND s.key = :words
          JOIN items named ON named.subject_id = s.id
"""


class Failures(NamedTuple):
    """How many subjects that are meant have failed, by run and class.

    :param more: the count stopped after so many as `look` says; there may be more.
    """

    counts: dict[tuple[int, str], int]
    more: bool

    @property
    def by_class(self) -> dict[str, int]:
        return self._sums(1)

    @property
    def by_run(self) -> dict[int, int]:
        return self._sums(0)

    def _sums(self, part: int) -> dict[Any, int]:
        sums: dict[Any, int] = {}
        for key, count in self.counts.items():
            sums[key[part]] = sums.get(key[part], 0) + count
        return sums


def failures(tx: Connection, meant: Meant) -> Failures:
    """Count the failures, by the latest attempt of each subject, that are meant and can be sent again."""
    tx.execute(db.BY_KEY)
    found = db.rows(
        tx,
        f"SELECT i.run_id, i.failure_class, count(*) AS looked, "  # noqa: S608 - constants
        f"count(*) FILTER (WHERE {SENDABLE} AND {condition(meant)}) AS count "
        f"FROM ({failed(meant)} LIMIT :look) AS i {'' if meant.whole_run else LATEST} GROUP BY 1, 2",
        look=look(meant),
        **binds(meant),
    )
    counts = {(line.run_id, line.failure_class): int(line.count) for line in found if line.count}
    return Failures(counts, sum(line.looked for line in found) >= look(meant))


def look(meant: Meant) -> int:
    """How many failures a count goes through, so that it reads no more than `LOOK` rows."""
    return LOOK if meant.whole_run else max(LOOK // TABLES, 1)


def condition(meant: Meant) -> str:
    """`fits` for the failures of a run, or what is as good where all of one is meant. Binds `:chosen`."""
    return "true" if meant.whole_run else fits(":chosen")


def binds(meant: Meant) -> dict[str, Any]:
    """What the statements of this room bind."""
    return {
        "run": meant.run_id,
        "batch": meant.batch_id,
        "request": meant.request_id,
        "words": meant.words,
        "subject": meant._subject,
        "chosen": meant.as_json(),
    }


def failed(meant: Meant) -> str:
    """Items that have failed, as a query: by what narrows them best."""
    if meant.words is not None:
        return f"SELECT * FROM items WHERE id IN ({BY_WORDS}) AND failure_class IS NOT NULL"  # noqa: S608 - constants
    if meant.request_id is not None or meant.batch_id is not None:
        one = "sent.id = :request" if meant.request_id is not None else "sent.batch_id = :batch"
        return (
            "SELECT mine.* FROM requests sent JOIN items mine ON mine.id = sent.item_id "  # noqa: S608 - constants
            f"AND mine.attempts = sent.attempt WHERE {one} AND mine.failure_class IS NOT NULL"
        )
    if meant.run_id is not None:
        return "SELECT * FROM items WHERE run_id = :run AND failure_class IS NOT NULL"
    return "SELECT * FROM items WHERE failure_class IS NOT NULL ORDER BY run_id DESC, id DESC"


def runs_meant(tx: Connection, meant: Meant, *, with_failures: bool = True) -> list[int]:
    """The runs that may hold what is meant, at most one more than `MOST_RUNS`, the oldest first.

    :param with_failures: only those that hold some.
    """
    conditions = {
        "run_id": "run.id = :run",
        "batch_id": "run.id = (SELECT run_id FROM batches WHERE id = :batch)",
        "request_id": "run.id = (SELECT b.run_id FROM requests r JOIN batches b ON b.id = r.batch_id "
        "WHERE r.id = :request)",
        "words": f"run.id IN (SELECT run_id FROM items WHERE id IN ({BY_WORDS}))",  # noqa: S608 - constants
        "task": "run.task = :task",
    }
    where = [sql for name, sql in conditions.items() if getattr(meant, name) is not None]
    if with_failures:
        where.append("EXISTS (SELECT 1 FROM items i WHERE i.run_id = run.id AND i.failure_class IS NOT NULL)")
    found = db.rows(
        tx,
        f"SELECT run.id FROM runs run WHERE {' AND '.join(where) or 'true'} ORDER BY run.id LIMIT :most",  # noqa: S608 - constants
        most=MOST_RUNS + 1,
        task=meant.task,
        **binds(meant),
    )
    return [run_id for (run_id,) in found]
