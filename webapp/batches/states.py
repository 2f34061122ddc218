"""The states of runs, batches, requests, items, uploads, installations and deliveries, and the moves of all but items
and requests. With `outcomes`, which moves those, the only code that assigns a state. Every step calls it inside its own
transaction.

A move is one guarded statement that also appends its event: it happens whole or not at all, and a
move that no longer applies (another worker was faster) touches nothing and says so with False.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.batches import whence
from webapp.records.escapes import storable


class RunState(StrEnum):
    PLANNING = "planning"  # its requests are being built and cut into batches
    RUNNING = "running"  # its batches are on their way
    PAUSED = "paused"  # nothing new is sent until it is resumed; the reason says why
    FINISHED = "finished"  # every subject is answered or has failed for good
    CANCELLED = "cancelled"  # by a person; what was paid for is kept


class BatchState(StrEnum):
    PLANNED = "planned"  # requests committed, waiting for its turn
    SUBMITTING = "submitting"  # the one POST is under way
    SUBMIT_UNKNOWN = "submit_unknown"  # the POST may have created a billable batch
    IN_PROGRESS = "in_progress"  # the API is working
    CANCELING = "canceling"  # cancel asked for; the API still finishes, and bills, part of it
    INGESTING = "ingesting"  # the API ended it; results are being stored
    DONE = "done"  # every request is accounted for
    FAILED = "failed"  # cannot go on; the reason is written for people
    DISCARDED = "discarded"  # never sent


class RequestState(StrEnum):
    """States of a request, and of an item by its latest attempt."""

    PENDING = "pending"  # not answered yet
    SUCCEEDED = "succeeded"  # a message came back
    ERRORED = "errored"  # refused, by the API or before it was sent
    CANCELED = "canceled"  # cancelled before it was worked on
    EXPIRED = "expired"  # 24 hours were over before it was worked on
    MISSING = "missing"  # the API ended without a line for it
    STOPPED = "stopped"  # never sent


class BatchRole(StrEnum):
    """What a batch goes ahead of the rest of its run for. See `webapp.batches.vanguard`."""

    PRIME = "prime"  # one request, to write the shared part into the cache
    PILOT = "pilot"  # the first subjects, for people to look at


class SubmissionOutcome(StrEnum):
    CREATED = "created"  # the API's id is known
    NOT_CREATED = "not_created"  # never armed, refused, or proved absent
    UNKNOWN = "unknown"  # armed, and no clear answer


class OutputState(StrEnum):
    WAITING = "waiting"  # succeeded, its processor has not run
    OK = "ok"  # the output is on the subject
    INVALID = "invalid"  # the answer is no use


class FailureClass(StrEnum):
    RETRY = "retry"  # the API's trouble: goes again by itself
    FIX = "fix"  # the request is at fault: change it first
    ACCOUNT = "account"  # key, permission or credit
    OUTPUT = "output"  # the answer is no use
    STOPPED = "stopped"  # cancelled or never sent


class UploadState(StrEnum):
    WAITING = "waiting"  # a person is to say which column is what
    IMPORTING = "importing"  # its records are being read
    REFUSED = "refused"  # it cannot be used as it is; the reason and its problems say why
    COMPARED = "compared"  # a person is to say whether its dataset is refreshed
    APPLYING = "applying"  # its dataset is being refreshed
    IMPORTED = "imported"  # its records are in the dataset
    DISCARDED = "discarded"  # nobody wants it any more


class InstallState(StrEnum):
    FETCHING = "fetching"  # its wheel is being got and looked into; nothing of it runs
    WAITING = "waiting"  # a person is to say whether it is installed
    INSTALLING = "installing"  # it is tried in a process of its own
    INSTALLED = "installed"  # every process takes it up
    REFUSED = "refused"  # it cannot be used; the reason says why
    DROPPED = "dropped"  # nobody wants it any more


class DeliveryState(StrEnum):
    WAITING = "waiting"  # to be done, or under way, or tried again after a while
    DELIVERED = "delivered"  # all of it was taken
    FAILED = "failed"  # tried often enough; a person may have it tried again
    SUPERSEDED = "superseded"  # given up for a later round, which brings everything


BATCH_MOVES: dict[BatchState, tuple[BatchState, ...]] = {
    BatchState.PLANNED: (BatchState.SUBMITTING, BatchState.DISCARDED),
    BatchState.SUBMITTING: (
        BatchState.IN_PROGRESS,
        BatchState.PLANNED,
        BatchState.SUBMIT_UNKNOWN,
        BatchState.FAILED,
        # 413: its requests moved on to two smaller batches.
        BatchState.DISCARDED,
    ),
    BatchState.SUBMIT_UNKNOWN: (BatchState.IN_PROGRESS, BatchState.PLANNED, BatchState.FAILED),
    BatchState.IN_PROGRESS: (BatchState.CANCELING, BatchState.INGESTING),
    BatchState.CANCELING: (BatchState.INGESTING,),
    BatchState.INGESTING: (BatchState.DONE, BatchState.IN_PROGRESS, BatchState.SUBMIT_UNKNOWN),
    BatchState.DONE: (BatchState.INGESTING,),
    BatchState.FAILED: (BatchState.PLANNED,),
    BatchState.DISCARDED: (),
}

RUN_MOVES: dict[RunState, tuple[RunState, ...]] = {
    RunState.PLANNING: (RunState.RUNNING, RunState.PAUSED, RunState.CANCELLED, RunState.FINISHED),
    RunState.RUNNING: (RunState.PAUSED, RunState.FINISHED, RunState.CANCELLED),
    RunState.PAUSED: (RunState.RUNNING, RunState.PLANNING, RunState.CANCELLED, RunState.FINISHED),
    RunState.FINISHED: (RunState.RUNNING,),
    RunState.CANCELLED: (RunState.RUNNING,),
}

UPLOAD_MOVES: dict[UploadState, tuple[UploadState, ...]] = {
    UploadState.WAITING: (UploadState.IMPORTING, UploadState.DISCARDED),
    UploadState.IMPORTING: (UploadState.IMPORTED, UploadState.REFUSED, UploadState.COMPARED),
    UploadState.REFUSED: (UploadState.IMPORTING, UploadState.DISCARDED),
    UploadState.COMPARED: (UploadState.APPLYING, UploadState.IMPORTING, UploadState.DISCARDED),
    # Its dataset has another revision than it was compared with: a person is to look again.
    UploadState.APPLYING: (UploadState.IMPORTED, UploadState.COMPARED),
    UploadState.IMPORTED: (),
    UploadState.DISCARDED: (),
}

INSTALL_MOVES: dict[InstallState, tuple[InstallState, ...]] = {
    InstallState.FETCHING: (InstallState.WAITING, InstallState.REFUSED, InstallState.DROPPED),
    InstallState.WAITING: (InstallState.INSTALLING, InstallState.DROPPED),
    InstallState.INSTALLING: (InstallState.INSTALLED, InstallState.REFUSED),
    InstallState.INSTALLED: (),
    InstallState.REFUSED: (),
    InstallState.DROPPED: (),
}

DELIVERY_MOVES: dict[DeliveryState, tuple[DeliveryState, ...]] = {
    DeliveryState.WAITING: (DeliveryState.DELIVERED, DeliveryState.FAILED, DeliveryState.SUPERSEDED),
    DeliveryState.DELIVERED: (),
    DeliveryState.FAILED: (DeliveryState.WAITING, DeliveryState.SUPERSEDED),
    DeliveryState.SUPERSEDED: (),
}

OPEN_BATCH_STATES = tuple(
    state for state in BatchState if state not in (BatchState.DONE, BatchState.FAILED, BatchState.DISCARDED)
)
FAILED_STATES = tuple(state for state in RequestState if state not in (RequestState.PENDING, RequestState.SUCCEEDED))


def move_batch(
    tx: Connection, batch_id: int, to: BatchState, *, actor: str, reason: str | None = None, **columns: Any
) -> bool:
    """Move a batch from whatever state allows it to `to`; False if its state allows it no more.

    :param reason: a sentence for people, kept on the batch and in the event.
    :param columns: other columns of the batch set by the same statement.
    """
    sources = [state.value for state, targets in BATCH_MOVES.items() if to in targets]
    moved = _move(tx, "batches", batch_id, to.value, sources, actor, reason, columns)
    return moved is not None


def move_run(
    tx: Connection, run_id: int, to: RunState, *, actor: str, reason: str | None = None, **columns: Any
) -> bool:
    """Move a run from whatever state allows it to `to`; False if its state allows it no more."""
    sources = [state.value for state, targets in RUN_MOVES.items() if to in targets]
    moved = _move(tx, "runs", run_id, to.value, sources, actor, reason, columns)
    return moved is not None


def move_upload(
    tx: Connection, upload_id: int, to: UploadState, *, actor: str, reason: str | None = None, **columns: Any
) -> bool:
    """Move an upload from whatever state allows it to `to`; False if its state allows it no more."""
    sources = [state.value for state, targets in UPLOAD_MOVES.items() if to in targets]
    moved = _move(tx, "uploads", upload_id, to.value, sources, actor, reason, columns)
    return moved is not None


def move_install(
    tx: Connection, install_id: int, to: InstallState, *, actor: str, reason: str | None = None, **columns: Any
) -> bool:
    """Move an installation from whatever state allows it to `to`; False if its state allows it no more."""
    sources = [state.value for state, targets in INSTALL_MOVES.items() if to in targets]
    moved = _move(tx, "plugin_installs", install_id, to.value, sources, actor, reason, columns)
    return moved is not None


def move_delivery(
    tx: Connection, delivery_id: int, to: DeliveryState, *, actor: str, words: str, reason: str | None = None
) -> bool:
    """Move a delivery from whatever state allows it to `to`; False if its state allows it no more.

    :param words: for the event, which stands among those of its run.
    :param reason: why it has failed, if it has.
    """
    sources = [state.value for state, targets in DELIVERY_MOVES.items() if to in targets]
    moved = _move(tx, "deliveries", delivery_id, to.value, sources, actor, reason, {}, words=words)
    return moved is not None


def _move(
    tx: Connection,
    table: str,
    row_id: int,
    to: str,
    sources: list[str],
    actor: str,
    reason: str | None,
    columns: dict[str, Any],
    *,
    words: str | None = None,
) -> Any:
    extra = "".join(f", {name} = :{name}" for name in columns) + (", held = false" if table == "batches" else "")
    owners = {
        "runs": "old.id, NULL, NULL, NULL, 'move'",
        "batches": "old.run_id, old.id, NULL, NULL, 'move'",
        "uploads": "NULL, NULL, 'upload', CAST(old.id AS text), 'move'",
        "plugin_installs": "NULL, NULL, 'install', CAST(old.id AS text), 'move'",
        # Not a move of its run, among whose events it stands.
        "deliveries": "old.run_id, NULL, 'delivery', CAST(old.id AS text), 'delivery'",
    }
    return db.row(
        tx,
        f"""
        WITH old AS (
            SELECT * FROM {table} WHERE id = :row_id AND state = ANY(:sources) FOR UPDATE
        ), moved AS (
            UPDATE {table} SET state = :to, reason = :reason, state_since = now(){extra}
            FROM old WHERE {table}.id = old.id
        )
        INSERT INTO events (run_id, batch_id, target_kind, target, kind, from_state, to_state, actor, address, reason)
        SELECT {owners[table]}, old.state, :to, :actor, :address, :words FROM old
        RETURNING id
        """,  # noqa: S608 - table and column names come from our own code
        row_id=row_id,
        to=to,
        sources=sources,
        actor=actor,
        address=whence.address(),
        reason=storable(reason) if reason else reason,
        words=storable(told) if (told := words or reason) else None,
        **columns,
    )
