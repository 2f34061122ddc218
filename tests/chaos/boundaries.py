"""Wraps a process's transactions, leases and gateway so that it can be stopped at any boundary of any step.

`watch` does that to this process; what happens at a boundary is the business of the `Act` it is given. Nothing of the
product knows of it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from chaos.points import (
    ANSWERED,
    CALL,
    CLOSED,
    COMMIT,
    COMMITTED,
    MOST_TIMES,
    READ,
    READING,
    SENDING,
    SENT,
    Point,
    place_of,
    verbs,
)
from webapp import db, jobs
from webapp.batches import polling, steps
from webapp.batches.steps import Lease
from webapp.gateway import Gateway

Act = Callable[[Point, Lease], None]


@dataclass
class Watch:
    """What this process is at: the lease of the step it performs, and what it has passed in it.

    :param taken: is told each lease that this process takes, also those of others that its step does along with it.
    """

    act: Act
    taken: Callable[[Lease], None] = lambda lease: None
    lease: Lease | None = None
    times: Counter[tuple[str, str]] = field(default_factory=Counter)

    def pass_(self, place: str, moment: str) -> None:
        """This process is at a boundary. Between two steps there is none."""
        if self.lease is None:
            return
        self.times[place, moment] += 1
        nth = self.times[place, moment]
        if nth <= MOST_TIMES:
            self.act(Point(str(self.lease.step), place, moment, nth), self.lease)


def watch(watched: Watch, patch: Callable[[Any, str, Any], None] = setattr) -> None:
    """Wrap what makes boundaries.

    :param patch: sets an attribute of an object; tests give one that is undone.
    """
    patch(db, "transaction", _transaction(watched, db.transaction))
    patch(steps, "take", _take(watched, steps.take))
    patch(polling, "take_due", _take_due(watched, polling.take_due))
    patch(jobs, "perform", _perform(watched, jobs.perform))
    for verb in verbs():
        patch(Gateway, verb, _verb(watched, f"gateway.{verb}", getattr(Gateway, verb)))


def _take(watched: Watch, real: Any) -> Any:
    @wraps(real)
    def take(tx: Any, step: Any, target_id: int) -> Lease | None:
        lease: Lease | None = real(tx, step, target_id)
        watched.lease = lease
        watched.times.clear()
        if lease is not None:
            watched.taken(lease)
        return lease

    return take


def _take_due(watched: Watch, real: Any) -> Any:
    @wraps(real)
    def take_due(*arguments: Any, **options: Any) -> dict[int, Lease]:
        leases: dict[int, Lease] = real(*arguments, **options)
        for lease in leases.values():
            watched.taken(lease)
        return leases

    return take_due


def _perform(watched: Watch, real: Any) -> Any:
    @wraps(real)
    def perform(step: str, target_id: int) -> None:
        try:
            real(step, target_id)
        finally:
            watched.lease = None

    return perform


def _transaction(watched: Watch, real: Any) -> Any:
    @wraps(real)
    def transaction(**options: Any) -> AbstractContextManager[Any]:
        place = place_of(sys._getframe(1))
        return real(**options) if place is None else bounded(place, options)

    @contextmanager
    def bounded(place: str, options: dict[str, Any]) -> Iterator[Any]:
        with real(**options) as tx:
            yield tx
            watched.pass_(place, COMMIT)
        watched.pass_(place, COMMITTED)

    return transaction


def _verb(watched: Watch, place: str, real: Any) -> Any:
    @wraps(real)
    def verb(self: Gateway, *arguments: Any, **options: Any) -> Any:
        watched.pass_(place, CALL)
        sent = [_pieces(watched, place, one, SENDING, SENT) if hasattr(one, "__next__") else one for one in arguments]
        try:
            answer = real(self, *sent, **options)
        finally:
            watched.pass_(place, ANSWERED)
        if hasattr(answer, "__enter__"):
            return _stream(watched, place, answer)
        return _pieces(watched, place, answer, READING, None) if hasattr(answer, "__next__") else answer

    return verb


@contextmanager
def _stream(watched: Watch, place: str, opened: Any) -> Iterator[Any]:
    with opened as lines:
        yield _pieces(watched, place, lines, READING, READ)
    watched.pass_(place, CLOSED)


def _pieces(watched: Watch, place: str, pieces: Iterator[Any], before: str, after: str | None) -> Iterator[Any]:
    for piece in pieces:
        watched.pass_(place, before)
        yield piece
    if after is not None:
        watched.pass_(place, after)
