"""What the lines of a results stream say, read and priced, in chunks that are stored together. No database here.
Ingestion reads a chunk ahead of the one it stores.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from webapp import db
from webapp.batches.failures import OF_STATE, STATES, Failure, of_error
from webapp.batches.outcomes import Answered
from webapp.batches.states import RequestState
from webapp.money import ledger
from webapp.records import jsontext
from webapp.records.escapes import storable

CHUNK_LINES = 2000
CHUNK_BYTES = 8_000_000

CUSTOM_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")  # the API's own rule; others are no ids, and some no text for a query
RESULT_COLUMNS = ("request_id", "kind", "stop_reason", "error_type", "error_message", "size", "line")


class Line(NamedTuple):
    """One line of results, parsed; `result` is what the API says of the request."""

    raw: bytes
    custom_id: str
    kind: str
    result: dict[str, Any]


class Answer(NamedTuple):
    """What a line says of its request, ready to be stored.

    :param result: a row in the order of `RESULT_COLUMNS`, but for the request's id.
    :param bill: what the ledger says of it; None: nothing was billed.
    """

    custom_id: str
    state: RequestState
    failure: Failure | None
    result: tuple[Any, ...]
    bill: ledger.Bill | None


class Chunk(NamedTuple):
    """Answers to be stored together, sorted by their custom_id."""

    answers: list[Answer]
    answered: Answered
    unreadable: int

    @classmethod
    def read(cls, raws: Iterable[bytes], billed: ledger.Billed) -> Chunk:
        """The first answer of each custom_id, and how many lines are none."""
        answers: dict[str, Answer] = {}
        unreadable = 0
        for raw in raws:
            line = parse(raw)
            if line is None:
                unreadable += 1
            elif line.custom_id not in answers:
                answers[line.custom_id] = _answer(line, billed)
        # By the custom_id, which no two share.
        ordered = sorted(answers.values())
        return cls(ordered, _answered(ordered), unreadable)


def chunks(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Lines in chunks bounded by count and bytes; blank lines are left out."""
    chunk: list[bytes] = []
    size = 0
    for raw in lines:
        line = raw.rstrip(b"\r")
        if not line.strip():
            continue
        chunk.append(line)
        size += len(line)
        if len(chunk) == CHUNK_LINES or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def parse(raw: bytes) -> Line | None:
    """One line of results, or None when it is none: cut, not JSON, without id, of a type unknown to us."""
    try:
        value = jsontext.loads(raw)
        identifier, result = value["custom_id"], value["result"]
        kind = result["type"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not isinstance(identifier, str) or not CUSTOM_ID.fullmatch(identifier):
        return None
    if not isinstance(kind, str) or kind not in STATES:
        return None
    if kind == "succeeded" and not isinstance(result.get("message"), dict):
        return None
    return Line(raw, identifier, kind, result)


def _answer(line: Line, billed: ledger.Billed) -> Answer:
    state = STATES[line.kind]
    size_and_line = (len(line.raw), line.raw.decode())
    if state == RequestState.SUCCEEDED:
        message = line.result["message"]
        result = (line.kind, _text(message.get("stop_reason")), None, None, *size_and_line)
        return Answer(line.custom_id, state, None, result, ledger.bill(billed, line.custom_id, message))
    failure = OF_STATE[state] if state in OF_STATE else of_error(line.result)
    failure = Failure(failure.kind, _text(failure.type), storable(failure.message))
    return Answer(
        line.custom_id, state, failure, (line.kind, None, failure.type, failure.message, *size_and_line), None
    )


def _answered(answers: Sequence[Answer]) -> Answered:
    failures = [answer.failure for answer in answers]
    return Answered(
        db.array(answer.custom_id for answer in answers),
        db.array([RequestState.PENDING.value] * len(answers)),
        db.array(answer.state.value for answer in answers),
        # Arrays that are shorter than the others are filled up with NULL: most chunks have no failure.
        db.array(failure and failure.kind.value for failure in failures) if any(failures) else "{}",
        db.array(failure and failure.message for failure in failures) if any(failures) else "{}",
    )


def _text(value: Any) -> str | None:
    """A string of the API's, fit for a text column."""
    return storable(value) if isinstance(value, str) else None
