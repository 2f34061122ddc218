"""The tables of the domain, for pages that read and for the migrations. The steps write with SQL.

Hot rows (items, requests) are narrow and updated in place; what is sent and what came back lies in
tables of its own (item_params, results, outputs) that are written once. JSON columns are `json`, not
`jsonb`: the text is kept byte for byte. Bulk tables carry no foreign key where COPY would pay for one
check per row and the writer holds the parent's lock anyway; `doctor` checks them instead.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Sequence,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from webapp.batches.states import (
    BatchRole,
    BatchState,
    FailureClass,
    OutputState,
    RequestState,
    RunState,
    SubmissionOutcome,
)
from webapp.db import Base


def one_of(column: str, values: type[StrEnum]) -> CheckConstraint:
    """A check that a text column holds a value of the enum (or NULL)."""
    return CheckConstraint(f"{column} IN ({', '.join(repr(v.value) for v in values)})", name=column)


def big_id() -> Mapped[int]:
    """The usual primary key."""
    return mapped_column(Identity(always=True), primary_key=True)


def moment(*, now: bool = False) -> Mapped[Any]:
    """A point in time; `now`: set by the database when the row is made."""
    return mapped_column(server_default=func.now() if now else None)


class Blob(Base):
    """Bytes stored once, by content; images are read from here while a batch is sent."""

    __tablename__ = "blobs"

    sha256: Mapped[bytes] = mapped_column(primary_key=True)
    media_type: Mapped[str]
    width: Mapped[int | None] = mapped_column(Integer)
    height: Mapped[int | None] = mapped_column(Integer)
    size: Mapped[int]
    # Images are compressed already: EXTERNAL storage spares the attempt (set in the migration).
    content: Mapped[bytes]
    wanted_at: Mapped[datetime] = moment(now=True)  # by a record; see `webapp.runs.retention`


class Dataset(Base):
    """A named import of records."""

    __tablename__ = "datasets"

    id: Mapped[int] = big_id()
    name: Mapped[str]
    source: Mapped[str]
    text_field: Mapped[str]
    # The plugin's source that its records came from, with its settings; or `run:ID`, whose outputs they are. None of
    # both for files.
    source_name: Mapped[str | None]
    source_settings: Mapped[Any | None] = mapped_column(JSON)
    subjects: Mapped[int] = mapped_column(Integer, server_default="0")
    # Counts the refreshes; see `webapp.runs.selections` for what a run over one of them holds.
    revision: Mapped[int] = mapped_column(Integer, server_default="1")
    created_by: Mapped[str]
    created_at: Mapped[datetime] = moment(now=True)


class Subject(Base):
    """One record: the owner's key and its data, verbatim, never changed. `size` is the length of `data`.

    A record that a refresh brings with another content is a new subject, and the former one is gone from then on.
    """

    __tablename__ = "subjects"
    __table_args__ = (
        UniqueConstraint("dataset_id", "key", "added_in"),
        UniqueConstraint("dataset_id", "position"),
        Index(None, "image", postgresql_where=text("image IS NOT NULL")),
    )

    id: Mapped[int] = big_id()
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    position: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str]
    key: Mapped[str]
    content_hash: Mapped[bytes]
    image: Mapped[bytes | None]
    size: Mapped[int] = mapped_column(Integer)
    # The revisions of its dataset that first held it, and first held it no more.
    added_in: Mapped[int] = mapped_column(Integer, server_default="1")
    gone_in: Mapped[int | None] = mapped_column(Integer)
    data: Mapped[Any] = mapped_column(JSON)


class Run(Base):
    """One task with one frozen copy of its settings, over the subjects of a dataset."""

    __tablename__ = "runs"
    __table_args__ = (one_of("state", RunState), CheckConstraint("pilot > 0", name="pilot"))

    id: Mapped[int] = big_id()
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"), index=True)
    schedule_id: Mapped[int | None] = mapped_column(index=True)  # which made it; it may be gone
    # The run whose subjects, or some of them, this one builds anew; which ones is in `selections`.
    parent_run_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id"), index=True)
    # Over which revision of its dataset, or (selected) over some subjects only, which are in `selections`.
    revision: Mapped[int] = mapped_column(Integer, server_default="1")
    selected: Mapped[bool] = mapped_column(server_default="false")
    task: Mapped[str]
    task_version: Mapped[str]
    # The installed version that brings its task, see `webapp.installed.versions`; NULL: a plugin of the environment.
    plugin_version_id: Mapped[int | None] = mapped_column(index=True)
    settings: Mapped[Any] = mapped_column(JSON)
    settings_hash: Mapped[str | None]  # see `webapp.runs.staleness`
    token: Mapped[str] = mapped_column(unique=True)
    shared: Mapped[Any | None] = mapped_column(JSON)
    # When its last request was built and cut; until then a resumed run is planned on.
    planned_at: Mapped[datetime | None] = moment()
    # How many subjects go ahead, as a pilot; when they were through, and when a person let the rest go.
    pilot: Mapped[int | None] = mapped_column(Integer)
    pilot_over_at: Mapped[datetime | None] = moment()
    pilot_released_at: Mapped[datetime | None] = moment()
    # Whether a person wants what comes next; NULL: the numbers decide.
    prime: Mapped[str | None] = mapped_column(CheckConstraint("prime IN ('on', 'off')", name="prime"))
    priming: Mapped[str | None]  # why one request goes ahead to write the cache; NULL: none does
    # When the plugins that check runs let it go, before its first batch was cut.
    checked_at: Mapped[datetime | None] = moment()
    subjects: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(server_default=RunState.PLANNING.value)
    state_since: Mapped[datetime] = moment(now=True)
    reason: Mapped[str | None]
    pause_wanted_at: Mapped[datetime | None] = moment()
    cancel_wanted_at: Mapped[datetime | None] = moment()
    resubmit_wanted: Mapped[list[str] | None] = mapped_column(ARRAY(Text))  # not used any more: see `resubmissions`
    payloads_dropped_at: Mapped[datetime | None] = moment()
    payloads_position: Mapped[int | None] = mapped_column(Integer)  # up to which they are so far; NULL: to the last
    owner: Mapped[str]
    created_at: Mapped[datetime] = moment(now=True)
    dataset: Mapped[Dataset] = relationship()


class Item(Base):
    """One subject in one run, and where it stands by its latest attempt. Hot and narrow."""

    __tablename__ = "items"
    __table_args__ = (
        UniqueConstraint("run_id", "position"),
        Index(None, "subject_id"),
        one_of("state", RequestState),
        one_of("output_state", OutputState),
        one_of("failure_class", FailureClass),
        # Room on each page for the new version of a row, so that an update touches no index.
        {"postgresql_with": {"fillfactor": 60}},
    )

    id: Mapped[int] = big_id()
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    subject_id: Mapped[int] = mapped_column(ForeignKey("subjects.id"))
    position: Mapped[int] = mapped_column(Integer)
    size: Mapped[int] = mapped_column(Integer)
    attempts: Mapped[int] = mapped_column(Integer, server_default="0")
    subject_type: Mapped[str]
    state: Mapped[str] = mapped_column(server_default=RequestState.PENDING.value)
    output_state: Mapped[str | None]
    failure_class: Mapped[str | None]
    error: Mapped[str | None]
    subject: Mapped[Subject] = relationship()


class ItemParams(Base):
    """An item's own part of the request, as JSON text. Cold."""

    __tablename__ = "item_params"

    item_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    own: Mapped[Any] = mapped_column(JSON)


class Batch(Base):
    """One Message Batch at the API: a shard of a run."""

    __tablename__ = "batches"
    __table_args__ = (
        UniqueConstraint("run_id", "ordinal"),
        one_of("state", BatchState),
        one_of("role", BatchRole),
        Index("ix_batches_ahead", "run_id", postgresql_where=text("role IS NOT NULL")),
        Index(
            "ix_batches_open",
            "id",
            postgresql_where=text("state NOT IN ('done', 'failed', 'discarded')"),
        ),
    )

    id: Mapped[int] = big_id()
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    account_id: Mapped[int | None] = mapped_column(ForeignKey("accounts.id"))
    ordinal: Mapped[int] = mapped_column(Integer)
    total: Mapped[int] = mapped_column(Integer)
    body_bytes: Mapped[int]
    role: Mapped[str | None]
    state: Mapped[str] = mapped_column(server_default=BatchState.PLANNED.value)
    state_since: Mapped[datetime] = moment(now=True)
    reason: Mapped[str | None]
    # True while it waits for a person; the reason says for what.
    held: Mapped[bool] = mapped_column(server_default="false")
    # False for an adopted batch until one line carries our custom_id.
    proved: Mapped[bool] = mapped_column(server_default="true")
    cancel_wanted_at: Mapped[datetime | None] = moment()
    # A person wants it cancelled though it is not proved to be ours.
    cancel_unproved: Mapped[bool] = mapped_column(server_default="false")
    # Where the custom_ids of its requests were drawn; see `webapp.batches.naming`.
    place: Mapped[str | None]
    api_id: Mapped[str | None] = mapped_column(unique=True)
    processing_status: Mapped[str | None]
    api_counts: Mapped[Any | None] = mapped_column(JSON)
    api_created_at: Mapped[datetime | None] = moment()
    api_ended_at: Mapped[datetime | None] = moment()
    expires_at: Mapped[datetime | None] = moment()
    results_url: Mapped[str | None]
    polled_at: Mapped[datetime | None] = moment()
    # When a complete fetch first lacked lines (rule 6: a second one, later, makes them missing).
    incomplete_since: Mapped[datetime | None] = moment()
    owed: Mapped[int] = mapped_column(Integer, server_default="0")  # answers that are paid, and lack their line
    resubmission_id: Mapped[int | None]  # the wish of a person whose attempts it holds, and no others
    # The least and the greatest id of its requests, as cut; lists jump to them. None: cut before they were noted.
    first_request_id: Mapped[int | None]
    last_request_id: Mapped[int | None]
    created_at: Mapped[datetime] = moment(now=True)
    run: Mapped[Run] = relationship()


class Request(Base):
    """One line of a batch: one attempt at one item. Hot and narrow."""

    __tablename__ = "requests"
    __table_args__ = (
        UniqueConstraint("item_id", "attempt"),
        Index(None, "batch_id", "id"),
        one_of("state", RequestState),
        one_of("failure_class", FailureClass),
        {"postgresql_with": {"fillfactor": 60}},
    )

    id: Mapped[int] = big_id()
    batch_id: Mapped[int] = mapped_column(ForeignKey("batches.id"))
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    attempt: Mapped[int] = mapped_column(Integer)
    custom_id: Mapped[str] = mapped_column(unique=True)
    state: Mapped[str] = mapped_column(server_default=RequestState.PENDING.value)
    failure_class: Mapped[str | None]
    batch: Mapped[Batch] = relationship()
    item: Mapped[Item] = relationship()


class Submission(Base):
    """One POST of a batch: intent, armed, outcome."""

    __tablename__ = "submissions"
    __table_args__ = (
        one_of("outcome", SubmissionOutcome),
        Index(None, "batch_id"),
        # Rule 3: two POSTs of one total are never open or unknown at once in one account, but where a guess was wrong.
        Index(
            "uq_submissions_open_total",
            "account_id",
            "total",
            unique=True,
            postgresql_where=text("(outcome IS NULL OR outcome = 'unknown') AND NOT searched_again"),
        ),
    )

    id: Mapped[int] = big_id()
    batch_id: Mapped[int] = mapped_column(ForeignKey("batches.id"))
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"))
    total: Mapped[int] = mapped_column(Integer)
    place: Mapped[str | None]  # of the ids that it carried
    api_time: Mapped[datetime] = moment()
    intent_at: Mapped[datetime] = moment(now=True)
    armed_at: Mapped[datetime | None] = moment()
    ended_at: Mapped[datetime | None] = moment()
    outcome: Mapped[str | None]
    api_id: Mapped[str | None]
    # A guess was taken back, perhaps while another POST of this total was open or unknown.
    searched_again: Mapped[bool] = mapped_column(server_default="false")
    # Batches of the API that were taken for this one and turned out to be a stranger's.
    ruled_out: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}")
    error: Mapped[str | None]


class Result(Base):
    """What came back for one request, verbatim, written once. `line` is NULL once it was dropped, `size` stays."""

    __tablename__ = "results"

    request_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str]
    stop_reason: Mapped[str | None]
    error_type: Mapped[str | None]
    error_message: Mapped[str | None]
    size: Mapped[int] = mapped_column(Integer)
    line: Mapped[Any | None] = mapped_column(JSON)
    received_at: Mapped[datetime] = moment(now=True)


class Output(Base):
    """What the task's processor made of a succeeded result, as it is now."""

    __tablename__ = "outputs"
    __table_args__ = (CheckConstraint("state IN ('ok', 'invalid')", name="state"),)

    request_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    state: Mapped[str]
    value: Mapped[Any | None] = mapped_column(JSON)
    reason: Mapped[str | None]
    task_version: Mapped[str]
    processed_at: Mapped[datetime] = moment(now=True)
    # The latest wish to process again that it answers; see `webapp.batches.reprocessing`.
    reprocessing_id: Mapped[int | None]


class Tally(Base):
    """How many requests or items entered and left each state in one chunk; appended, never changed."""

    __tablename__ = "tallies"
    __table_args__ = (
        CheckConstraint("scope IN ('requests', 'items')", name="scope"),
        Index(None, "run_id", "scope"),
        Index(None, "batch_id", "scope"),
        Index(None, "at"),
    )

    id: Mapped[int] = big_id()
    scope: Mapped[str]
    run_id: Mapped[int]
    batch_id: Mapped[int | None]
    # Counts of items of class retry: the attempt that failed. NULL: of all others, and of requests.
    retry_attempt: Mapped[int | None] = mapped_column(Integer)
    pending: Mapped[int] = mapped_column(Integer, server_default="0")
    succeeded: Mapped[int] = mapped_column(Integer, server_default="0")
    errored: Mapped[int] = mapped_column(Integer, server_default="0")
    canceled: Mapped[int] = mapped_column(Integer, server_default="0")
    expired: Mapped[int] = mapped_column(Integer, server_default="0")
    missing: Mapped[int] = mapped_column(Integer, server_default="0")
    stopped: Mapped[int] = mapped_column(Integer, server_default="0")
    ok: Mapped[int] = mapped_column(Integer, server_default="0")
    invalid: Mapped[int] = mapped_column(Integer, server_default="0")
    at: Mapped[datetime] = moment(now=True)


# Epochs of leases: no two holders ever share one.
STEP_EPOCHS = Sequence("step_epochs", metadata=Base.metadata)


class Step(Base):
    """Work that is due: one row per step and target, with its lease. See `webapp.batches.steps`."""

    __tablename__ = "steps"
    # No index but the key: it holds what is in flight, and an update that touches no index is cheap.
    __table_args__ = ({"postgresql_with": {"fillfactor": 50}},)

    step: Mapped[str] = mapped_column(primary_key=True)
    target_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    due_at: Mapped[datetime | None] = moment()
    lease_until: Mapped[datetime | None] = moment()
    epoch: Mapped[int] = mapped_column(server_default="0")
    nudged_at: Mapped[datetime | None] = moment()
    starts: Mapped[int] = mapped_column(Integer, server_default="0")
    failures: Mapped[int] = mapped_column(Integer, server_default="0")
    culprit: Mapped[int | None]  # not used any more
    error: Mapped[str | None]
