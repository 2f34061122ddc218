"""A task builds its requests: the part that all of a run share, and each record's own, encoded and measured.
Planning, previews and `--dry-run` build here, so that what people are shown is what would be sent.

The task runs in a process of its own, with bounds: see `webapp.batches.bounded`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from webapp.batches import encoding
from webapp.batches.bounded import Broke, bounded
from webapp.batches.naming import TOKEN_LENGTH
from webapp.errors import InputError, PluginError
from webapp.hooks import Image, Subject, Task, calls
from webapp.records import jsontext

Row = TypeVar("Row")

NO_TOKEN = "0" * TOKEN_LENGTH  # as long as a run's own, for requests that are only shown and measured
NO_ID = b"(made when planned)"

# What a task or its parameters may raise: the fault of a setting or a record, never of ours.
FAULTS = (InputError, PluginError, TypeError, ValueError, RecursionError)


@dataclass(frozen=True, slots=True)
class Mould:
    """What all requests of one run are made with.

    :param token: of the run; marks images.
    :param text_field: of the dataset.
    :param shared: the encoded part that all requests have.
    :param room: the most bytes that one request's parameters may have.
    """

    task: Task[Any]
    settings: BaseModel
    token: str
    text_field: str
    shared: str
    shared_params: dict[str, Any]
    room: int

    @classmethod
    def of(
        cls, task: Task[Any], settings: BaseModel, shared: str, *, token: str, text_field: str, max_bytes: int
    ) -> Mould:
        """With an encoded shared part.

        :param max_bytes: the most that a batch may have.
        """
        room = min(encoding.MAX_REQUEST_BYTES, encoding.room_for_one(max_bytes))
        return cls(task, settings, token, text_field, shared, jsontext.loads(shared), room)

    @property
    def shared_bytes(self) -> int:
        return len(self.shared.encode())


@dataclass(frozen=True, slots=True)
class Own:
    """One record's own part, encoded, with its bytes as they will be sent; or why it has none."""

    text: str | None
    size: int
    fault: str | None


def shared_part(task: Task[Any], settings: BaseModel, token: str) -> str:
    """The shared part as it is stored and sent.

    :raises PluginError: the task cannot make it; says why.
    """

    def made(_: None) -> tuple[str | None, str | None]:
        try:
            return encoding.encode(calls.shared_params(task, settings), token), None
        except FAULTS as error:
            return None, str(error)

    ((_, found),) = bounded([None], made)
    if isinstance(found, Broke):
        raise PluginError(f"Task '{task.name}', version {task.version}, {found.words} in shared_params. Mend the task.")
    shared, fault = found
    if fault is not None:
        raise PluginError(fault)
    return str(shared)


def own_parts(mould: Mould, rows: Sequence[Row], row_of: Any = None) -> Iterator[tuple[Row, Own]]:
    """Each row with its own part, in order; nobody has to take them all.

    :param row_of: what gives the subject's row of one of `rows`, where that is more than a subject's row.
    """

    def subject(row: Row) -> Any:
        return row_of(row) if row_of else row

    for row, made in bounded(rows, lambda one: _own(mould, subject(one))):
        if isinstance(made, Broke):
            task = f"Task '{mould.task.name}', version {mould.task.version}"
            words = f"{task}, record '{subject(row).key}': request_params {made.words}. Mend the task."
            yield row, Own(None, 0, words)
        else:
            yield row, Own(*made)


def _own(mould: Mould, row: Any) -> tuple[str | None, int, str | None]:
    """(own part, its bytes as it will be sent, why it cannot be) of one subject."""
    if row.image and row.media_type is None:
        return (
            None,
            0,
            f"The image of record '{row.key}' was dropped with the payloads of earlier runs. Import it again.",
        )
    try:
        params = calls.request_params(
            mould.task, subject_payload(row, mould.text_field), mould.settings, mould.shared_params
        )
        own = encoding.encode(params, mould.token)
        size = encoding.sent_bytes(own.encode(), encoding.mark_pattern(mould.token), lambda _: row.size)
        _check_size(mould, size)
    except FAULTS as error:
        return None, 0, str(error)
    return own, size, None


def subject_payload(row: Any, text_field: str) -> Subject:
    """A row of subjects (with its blob) as plugins get it."""
    data = jsontext.loads(row.data)
    image = Image(row.image, row.media_type, row.width, row.height) if row.image else None
    text = data.get(text_field)
    return Subject(row.kind, row.key, data, image, text if isinstance(text, str) else None)


def _check_size(mould: Mould, own_bytes: int) -> None:
    size = encoding.params_bytes(mould.shared_bytes, own_bytes)
    if size > mould.room:
        raise InputError(
            f"The request is {size:,} bytes once built; the most that can be sent is {mould.room:,}. "
            "It was not sent: shorten the record."
        )
