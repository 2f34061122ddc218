"""The places at which a step can be killed, compiled from the source: whoever adds a step need not think of them.

A place is a transaction of a step (`submission._arm`) or a verb of the gateway (`gateway.create`); a fault point is a
step that passes a moment of a place: `submit:submission._arm:commit:1`, the last number telling how often it did so in
one performance. `boundaries` counts the passing and acts on it; `scenarios` finds out which points there are.
"""

from __future__ import annotations

import ast
import inspect
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from webapp.gateway import Gateway

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("batches", "datasets", "delivery", "installed", "money", "runs")
# Where transactions of steps are. Four files of the rooms have none: a command imports, `doctor` audits, a page
# previews, and what keeps a lease is a thread that is at its boundary every four seconds, whatever the step does.
FILES = [
    ROOT / "webapp" / "jobs.py",
    *(path for room in ROOMS for path in sorted((ROOT / "webapp" / room).glob("*.py"))),
]
NO_STEPS = {"importing", "auditing", "preview", "steps"}
#: What a worker does in `jobs`: its own transactions around a step. The rest is the web's, and a thread's that ends a
#: step which is silent for long after its worker was asked to end.
OF_A_WORKER = {"jobs._perform", "jobs._failed", "jobs.nudge"}

COMMIT, COMMITTED = "commit", "committed"  # just before a transaction's commit, and just after
CALL, ANSWERED = "call", "answered"  # before a verb of the gateway, and after it has returned or raised
SENDING, SENT = "sending", "sent"  # before a piece of a body, and after the last one
READING, READ = "reading", "read"  # before a line of a stream or a page of a list, and after the last one
CLOSED = "closed"  # a stream was left
MOST_TIMES = 2  # a point that is passed more often in one performance is the same for our purpose


class Point(NamedTuple):
    """A step that passes a moment of a place, for the n-th time in one performance."""

    step: str
    place: str
    moment: str
    nth: int

    def __str__(self) -> str:
        return ":".join(str(part) for part in self)

    @classmethod
    def read(cls, text: str) -> Point:
        step, place, moment, nth = text.split(":")
        return cls(step, place, moment, int(nth))


@cache
def transactions() -> dict[tuple[str, int], str]:
    """(file, line) -> place, for each `with db.transaction()` of a step; a function with several numbers them."""
    found: dict[tuple[str, int], str] = {}
    for path in FILES:
        if path.stem in NO_STEPS:
            continue
        places = list(_transactions(ast.parse(path.read_text()), path.stem))
        several = Counter(name for name, _, _ in places)
        numbers: Counter[str] = Counter()
        for name, first, last in places:
            if path.stem == "jobs" and name not in OF_A_WORKER:
                continue
            numbers[name] += 1
            place = f"{name}.{numbers[name]}" if several[name] > 1 else name
            found.update({(str(path), line): place for line in range(first, last + 1)})
    return found


def _transactions(tree: ast.AST, inside: str) -> Iterator[tuple[str, int, int]]:
    """(name, first line, last line) of each transaction, in the order of the source."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield from _transactions(node, f"{inside}.{node.name}")
            continue
        if isinstance(node, ast.With):
            for item in node.items:
                if "db.transaction(" in ast.unparse(item.context_expr):
                    yield inside, item.context_expr.lineno, item.context_expr.end_lineno or 0
        yield from _transactions(node, inside)


def place_of(frame: FrameType) -> str | None:
    """The place of the transaction that a frame opens just now; None: of no step."""
    return transactions().get((frame.f_code.co_filename, frame.f_lineno))


@cache
def verbs() -> dict[str, tuple[str, ...]]:
    """The gateway's verbs, by name, with the moments that each has, read from its annotations."""
    found = {}
    for name, verb in inspect.getmembers(Gateway, inspect.isfunction):
        if name.startswith("_") or name == "close":  # which asks the API nothing
            continue
        signature = inspect.signature(verb)
        moments = [CALL, ANSWERED]
        if any("Iterator" in str(one.annotation) for one in signature.parameters.values()):
            moments += [SENDING, SENT]
        if "Iterator" in str(signature.return_annotation):
            moments += [READING]  # whoever reads a list leaves it as soon as it knows enough
        if "Iterator[Iterator" in str(signature.return_annotation):  # a context manager over a stream
            moments += [READ, CLOSED]
        found[name] = tuple(moments)
    return found


def compiled() -> set[tuple[str, str]]:
    """(place, moment) of everything that a step can be killed at."""
    places = {(place, moment) for place in transactions().values() for moment in (COMMIT, COMMITTED)}
    return places | {(f"gateway.{verb}", moment) for verb, moments in verbs().items() for moment in moments}
