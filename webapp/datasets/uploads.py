"""Files that people upload to make or refresh a dataset: their bytes, what is wrong with them, and where they stand.
The dashboard stores them and asks for their import; the step `import` (in `intake`) does it.

The bytes lie in the database, in chunks, since the web and the workers may be on different machines. They and what was
staged of them are gone once the upload is imported or discarded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Connection, ForeignKey, Identity, Index, Integer, func, text
from sqlalchemy.orm import Mapped, mapped_column

from webapp import db
from webapp.batches.books import note
from webapp.batches.models import Run, Subject, one_of
from webapp.batches.states import UploadState, move_upload
from webapp.batches.steps import StepName, due
from webapp.db import Base
from webapp.errors import NotFound, Refused
from webapp.records.escapes import storable
from webapp.records.reading import RAW_BYTES, Problem

TARGET = "upload"  # of events
CHUNK_BYTES = 1 << 20
STORED_PROBLEMS = 500  # the rest is counted
STORED_RAW = 8_000  # bytes of a record that cannot be used
UNFINISHED_DAYS = 7  # after which an upload that nobody goes on with is discarded
OPEN = (UploadState.WAITING, UploadState.IMPORTING, UploadState.REFUSED, UploadState.COMPARED, UploadState.APPLYING)
LEFT_ALONE = f"Nobody went on with it for {UNFINISHED_DAYS} days."


class Upload(Base):
    """One uploaded file and what is to become of it."""

    __tablename__ = "uploads"
    __table_args__ = (one_of("state", UploadState), Index(None, "dataset_id", "id"))

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    name: Mapped[str]  # the file's
    size: Mapped[int] = mapped_column(server_default="0")
    dataset_name: Mapped[str]
    # The dataset that it made, or is to refresh.
    dataset_id: Mapped[int | None] = mapped_column(ForeignKey("datasets.id"))
    refreshes: Mapped[bool]
    key_field: Mapped[str | None]
    text_field: Mapped[str | None]
    skip_bad: Mapped[bool] = mapped_column(server_default="false")
    state: Mapped[str] = mapped_column(server_default=UploadState.WAITING.value)
    state_since: Mapped[datetime] = mapped_column(server_default=func.now())
    reason: Mapped[str | None]
    problems: Mapped[int] = mapped_column(Integer, server_default="0")
    # How it differs from the revision `against` of its dataset, with the first keys of each; and the one it made.
    against: Mapped[int | None] = mapped_column(Integer)
    added: Mapped[int | None] = mapped_column(Integer)
    changed: Mapped[int | None] = mapped_column(Integer)
    same: Mapped[int | None] = mapped_column(Integer)
    absent: Mapped[int | None] = mapped_column(Integer)
    examples: Mapped[Any | None] = mapped_column(JSON)
    remove_absent: Mapped[bool] = mapped_column(server_default="false")
    revision: Mapped[int | None] = mapped_column(Integer)
    # Where no file was uploaded: the source that its records come from, with the settings as people wrote them.
    source_name: Mapped[str | None]
    source_settings: Mapped[Any | None] = mapped_column(JSON)
    token: Mapped[str | None] = mapped_column(unique=True)  # of who asked, so that to ask again is the same import
    created_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class UploadChunk(Base):
    """CHUNK_BYTES of a file; the last one has fewer."""

    __tablename__ = "upload_chunks"

    upload_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    ordinal: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    # Kept for minutes: EXTERNAL storage spares compressing them (set in the migration).
    content: Mapped[bytes]


class UploadProgress(Base):
    """How far the import is, written apart from what it stores: people look on while that is not committed."""

    __tablename__ = "upload_progress"

    upload_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    fetched: Mapped[int] = mapped_column(server_default="0")  # bytes
    records: Mapped[int] = mapped_column(server_default="0")
    told_at: Mapped[datetime] = mapped_column(server_default=func.now())


class UploadProblem(Base):
    """One record that cannot be used; of the first STORED_PROBLEMS."""

    __tablename__ = "upload_problems"

    upload_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    ordinal: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    place: Mapped[str]
    fault: Mapped[str]
    remedy: Mapped[str]
    raw: Mapped[bytes]
    cut: Mapped[bool]


class UploadRecord(Base):
    """A record that waits until somebody confirms the refresh; columns as those of subjects."""

    __tablename__ = "upload_records"

    upload_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    kind: Mapped[str]
    key: Mapped[str]
    content_hash: Mapped[bytes]
    image: Mapped[bytes | None]
    size: Mapped[int] = mapped_column(Integer)
    data: Mapped[Any] = mapped_column(JSON)


# Pages and refreshes look for what a dataset holds at present: by position, and by how a key begins.
_PRESENT = text("gone_in IS NULL")
Index("ix_subjects_present", Subject.dataset_id, Subject.position, postgresql_where=_PRESENT)
Index(
    "ix_subjects_present_key",
    Subject.dataset_id,
    Subject.key,
    postgresql_where=_PRESENT,
    postgresql_ops={"key": "text_pattern_ops"},
)
Index(None, Run.dataset_id, Run.id)


def store(
    tx: Connection, pieces: Iterable[bytes], *, name: str, dataset_name: str, dataset_id: int | None, actor: str
) -> int:
    """Store a file; its upload's id. Memory does not grow with the file.

    :param pieces: the file in pieces of CHUNK_BYTES.
    :param dataset_id: the dataset that it is to refresh; None: it makes a new one.
    """
    clear_old(tx)
    upload_id: int = db.scalar(
        tx,
        "INSERT INTO uploads (name, dataset_name, dataset_id, refreshes, created_by, key_field) "
        "VALUES (:name, :dataset_name, :dataset, :refreshes, :actor, (SELECT key_field FROM uploads "
        "WHERE dataset_id = :dataset AND state = 'imported' ORDER BY id DESC LIMIT 1)) RETURNING id",
        name=storable(name),
        dataset_name=storable(dataset_name),
        dataset=dataset_id,
        refreshes=dataset_id is not None,
        actor=actor,
    )
    size = 0
    # One by one, and no COPY: that would hold in memory what the server has not taken yet.
    for ordinal, piece in enumerate(pieces):
        size += len(piece)
        db.run(
            tx,
            "INSERT INTO upload_chunks (upload_id, ordinal, content) VALUES (:id, :ordinal, :content)",
            id=upload_id,
            ordinal=ordinal,
            content=piece,
        )
    db.run(tx, "UPDATE uploads SET size = :size WHERE id = :id", size=size, id=upload_id)
    target = (TARGET, str(upload_id))
    note(tx, run_id=None, target=target, actor=actor, reason=f"{name} uploaded.", kind="wish")
    return upload_id


def import_upload(
    tx: Connection,
    upload_id: int,
    *,
    key_field: str,
    text_field: str,
    skip_bad: bool,
    actor: str,
    dataset_name: str | None = None,
) -> None:
    """Ask that an upload is imported, or compared with the dataset that it is to refresh.

    :param skip_bad: go on without the records that cannot be used; they stay listed.
    :raises Refused: it is under way, or over.
    """
    due(tx, StepName.IMPORT, upload_id)
    upload = found(tx, upload_id)
    moved = move_upload(
        tx,
        upload_id,
        UploadState.IMPORTING,
        actor=actor,
        key_field=key_field,
        text_field=upload.fixed_text_field or text_field,
        skip_bad=skip_bad,
        dataset_name=storable(dataset_name or upload.dataset_name),
    )
    if not moved:
        raise Refused(f"Upload {upload_id} is {upload.state}: it cannot be imported now.")
    db.run(tx, "DELETE FROM upload_progress WHERE upload_id = :id", id=upload_id)


def apply(tx: Connection, upload_id: int, *, remove_absent: bool, actor: str) -> None:
    """Confirm that a dataset is refreshed from an upload.

    :param remove_absent: records of the dataset that are not in the file are gone from it; else they are kept.
    :raises Refused: it was not compared, or it changes nothing.
    """
    due(tx, StepName.IMPORT, upload_id)
    upload = found(tx, upload_id)
    if upload.state == UploadState.COMPARED and not (
        upload.added or upload.changed or (remove_absent and upload.absent)
    ):
        raise Refused("The file changes nothing: the dataset stays at the revision it has.")
    if not move_upload(tx, upload_id, UploadState.APPLYING, actor=actor, remove_absent=remove_absent):
        raise Refused(f"Upload {upload_id} is {upload.state}: there is nothing to confirm.")


def discard(tx: Connection, upload_id: int, *, actor: str) -> None:
    """Give an upload up; its bytes are gone.

    :raises Refused: it is under way, or over.
    """
    upload = found(tx, upload_id)
    if not move_upload(tx, upload_id, UploadState.DISCARDED, actor=actor):
        raise Refused(f"Upload {upload_id} is {upload.state}: it cannot be discarded.")
    forget(tx, upload_id)


def found(tx: Connection, upload_id: int) -> Any:
    """An upload's row, with the text field that its dataset prescribes, if any.

    :raises NotFound: there is no such upload.
    """
    row = db.row(
        tx,
        "SELECT u.*, CASE WHEN u.refreshes THEN d.text_field END AS fixed_text_field, d.name AS present_name "
        "FROM uploads u LEFT JOIN datasets d ON d.id = u.dataset_id WHERE u.id = :id",
        id=upload_id,
    )
    if row is None:
        raise NotFound(f"There is no upload {upload_id}.")
    return row


def file_name(name: str) -> str:
    """The name of an upload's file as a folder of ours can hold it; its ending stays."""
    clean = "".join("_" if char in "/\\:" or not char.isprintable() else char for char in name).lstrip(".")
    stem, dot, ending = clean.rpartition(".")
    return f"{stem[:60] or 'file'}{dot}{ending[:20]}"


def chunk(tx: Connection, upload_id: int, ordinal: int) -> bytes | None:
    """A chunk of a file; None after its last."""
    content = db.scalar(
        tx,
        "SELECT content FROM upload_chunks WHERE upload_id = :id AND ordinal = :ordinal",
        id=upload_id,
        ordinal=ordinal,
    )
    return None if content is None else bytes(content)


def put_problems(tx: Connection, upload_id: int, first: Sequence[Problem]) -> None:
    """Store the first problems of an upload in place of those there were."""
    db.run(tx, "DELETE FROM upload_problems WHERE upload_id = :id", id=upload_id)
    columns = ("upload_id", "ordinal", "place", "fault", "remedy", "raw", "cut")
    db.copy_rows(
        tx,
        "upload_problems",
        columns,
        (
            (upload_id, n, storable(one.where), storable(one.fault), storable(one.remedy), one.raw[:STORED_RAW], cut)
            for n, one in enumerate(first, 1)
            for cut in (len(one.raw) > STORED_RAW or len(one.raw) >= RAW_BYTES,)
        ),
    )


def problems(tx: Connection, upload_id: int) -> list[Any]:
    """The stored problems of an upload, in the order of its records."""
    return list(
        db.rows(
            tx,
            "SELECT place, fault, remedy, raw, cut FROM upload_problems WHERE upload_id = :id ORDER BY ordinal",
            id=upload_id,
        )
    )


def forget(tx: Connection, upload_id: int) -> None:
    """Delete an upload's bytes and staged records; what it was and its problems stay."""
    for table in ("upload_chunks", "upload_records", "upload_progress"):
        db.run(tx, f"DELETE FROM {table} WHERE upload_id = :id", id=upload_id)  # noqa: S608


def clear_old(tx: Connection) -> None:
    """Discard the uploads that nobody went on with. May be repeated; there is hardly ever one."""
    left = db.rows(
        tx,
        "SELECT id FROM uploads WHERE state = ANY(:states) AND state_since < now() - make_interval(days => :days) "
        "FOR UPDATE SKIP LOCKED",
        states=[UploadState.WAITING, UploadState.REFUSED, UploadState.COMPARED],
        days=UNFINISHED_DAYS,
    )
    for (upload_id,) in left:
        if move_upload(tx, upload_id, UploadState.DISCARDED, actor="batchdesk", reason=LEFT_ALONE):
            forget(tx, upload_id)
