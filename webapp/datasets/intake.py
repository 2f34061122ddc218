"""The step `import`: the records of an upload, or of a source, become a dataset, or are compared with the one that they
are to refresh, which a person then confirms. In one transaction each, or nothing of it.

The workers call it, holding the step's lease. The bytes are fetched from the database into a folder of this process
and read there, in flat memory.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection

from webapp import db
from webapp.batches import leaving
from webapp.batches.desk import Desk
from webapp.batches.states import UploadState, move_upload
from webapp.batches.steps import Lease
from webapp.datasets import (
    derived,
    refreshing,
    sources,
    sourcing,
    uploads,
)
from webapp.datasets.importing import SUBJECT_COLUMNS, holds, import_records, new_dataset, subject_rows
from webapp.errors import InputError, NotFound, PluginError
from webapp.records.archives import Archive
from webapp.records.reading import Problem, Record, read_records

ACTOR = "worker"
TELL_SECONDS = 1.0  # between two notes of how far it is
RECORD_COLUMNS = ("upload_id", *SUBJECT_COLUMNS[1:])
_FOLDER = "batchdesk-import-"


def import_upload(desk: Desk, lease: Lease) -> float | None:
    """Do what was asked of an upload. May be repeated: it is imported once."""
    with db.transaction() as tx:
        lease.hold(tx)
        uploads.clear_old(tx)
        upload = uploads.found(tx, lease.target_id)
    if upload.state == UploadState.APPLYING:
        _apply(lease, upload)
    elif upload.state == UploadState.IMPORTING:
        work = _Work(desk, lease, upload)
        try:
            with _own_folder() as folder:
                work.read(folder)
        except (InputError, NotFound, PluginError) as error:
            _refuse(lease, work, str(error))
    return None


class _Work:
    """One upload while its records are read: what is wrong with them, and how far it is."""

    def __init__(self, desk: Desk, lease: Lease, upload: Any) -> None:
        self.desk = desk
        self.lease = lease
        self.upload = upload
        self.first: list[Problem] = []
        self.problems = 0
        self._fetched = self._records = 0
        self._told = -TELL_SECONDS

    def read(self, folder: Path) -> None:
        """Fetch what is to be imported and store its records.

        :raises InputError: it is unusable, or some of its records are and nobody said to skip them.
        """
        upload = self.upload
        run_id = derived.run_named(upload.source_name or "")
        try:
            filling = _Outputs(self, run_id) if run_id else _Records(self, self._found(folder))
            if upload.refreshes:
                _compare(self, filling)
            else:
                _import(self, filling)
        except InputError as error:
            raise InputError(for_pages(str(error), folder)) from error

    def _found(self, folder: Path) -> Iterator[Record | Problem]:
        if self.upload.source_name is not None:
            return self._given(folder)
        return read_records(self._file(folder), key_field=self.upload.key_field, text_field=self.upload.text_field)

    def _given(self, folder: Path) -> Iterator[Record | Problem]:
        """What a source gives, once it has come in as a whole."""
        path, registry = folder / "given", self.desk.registry
        with db.transaction() as tx:
            source, settings = sources.of_upload(tx, registry, self.upload)
        for reached in sourcing.spool(source, settings, path):
            leaving.look()
            self._fetched = reached.size
            self._tell()
        return sourcing.spooled(path)

    def _file(self, folder: Path) -> Path:
        """The file in our folder, by its own name; of an archive the folder of what it holds."""
        path = folder / uploads.file_name(self.upload.name)
        with path.open("xb") as stream:
            ordinal = 0
            while True:
                leaving.look()
                with db.transaction() as tx:
                    piece = uploads.chunk(tx, self.upload.id, ordinal)
                if piece is None:
                    break
                stream.write(piece)
                self._fetched += len(piece)
                ordinal += 1
                self._tell()
        if path.suffix.lower() != ".zip":
            return path
        inner = folder / "unpacked" / path.name
        with path.open("rb") as stream:
            archive = Archive(stream, path.name)
            inner.mkdir(parents=True)
            archive.unpack(archive.entries, inner)
        return inner

    def records(self, found: Iterable[Record | Problem]) -> Iterator[Record]:
        """The usable records, as long as it is worth storing them.

        :raises InputError: at the end, when some are not usable and are not to be skipped.
        """
        for one in found:
            leaving.look()
            self._records += 1
            self._tell()
            if isinstance(one, Record):
                if self.upload.skip_bad or not self.problems:
                    yield one
                continue
            if self.problems < uploads.STORED_PROBLEMS:
                self.first.append(_for_pages(one))
            self.problems += 1
        self._tell(now=True)
        if self.problems and not self.upload.skip_bad:
            raise InputError(_count(self.problems))

    def _tell(self, *, now: bool = False) -> None:
        at = time.monotonic()
        if not now and at - self._told < TELL_SECONDS:
            return
        self._told = at
        with db.transaction(lazily=True) as tx:
            db.run(
                tx,
                "INSERT INTO upload_progress (upload_id, fetched, records) VALUES (:id, :fetched, :records) "
                "ON CONFLICT (upload_id) DO UPDATE SET fetched = :fetched, records = :records, told_at = now()",
                id=self.upload.id,
                fetched=self._fetched,
                records=self._records,
            )


def _count(problems: int) -> str:
    words = "1 record cannot be used" if problems == 1 else f"{problems:,} records cannot be used"
    return f"{words}, so nothing was imported."


class _Filling(Protocol):
    """Where the records of an import come from, within the transaction that stores them."""

    def dataset(self, tx: Connection) -> int:
        """Make a dataset of them; its id."""

    def stage(self, tx: Connection) -> int:
        """Put them where they wait for somebody to confirm; how many."""


class _Records:
    """Records that have been read here."""

    def __init__(self, work: _Work, found: Iterable[Record | Problem]) -> None:
        self._work, self._found = work, found

    def dataset(self, tx: Connection) -> int:
        upload = self._work.upload
        return import_records(
            tx,
            self._work.records(self._found),
            name=upload.dataset_name,
            source=Path(upload.name),
            text_field=upload.text_field,
            owner=upload.created_by,
        )[0]

    def stage(self, tx: Connection) -> int:
        rows = subject_rows(self._work.upload.id, self._work.records(self._found), set())
        return db.copy_rows(tx, "upload_records", RECORD_COLUMNS, rows)


class _Outputs:
    """The outputs of a run, which are in the database already."""

    def __init__(self, work: _Work, run_id: int) -> None:
        self._upload, self._run_id = work.upload, run_id

    def dataset(self, tx: Connection) -> int:
        upload = self._upload
        made = new_dataset(
            tx, name=upload.dataset_name, source=upload.name, text_field=upload.text_field, owner=upload.created_by
        )
        holds(tx, made, derived.into_dataset(tx, self._run_id, made))
        return made

    def stage(self, tx: Connection) -> int:
        return derived.into_staging(tx, self._run_id, self._upload.id)


def _import(work: _Work, filling: _Filling) -> None:
    """Make the dataset. The lease is looked at last: its row is kept free while the records are read."""
    upload = work.upload
    with db.transaction() as tx:
        dataset_id = filling.dataset(tx)
        sources.remember(tx, upload, dataset_id)
        work.lease.hold(tx)
        _settle(tx, work, UploadState.IMPORTED, dataset_id=dataset_id, revision=1, added=_subjects(tx, dataset_id))
        uploads.forget(tx, upload.id)


def _subjects(tx: Connection, dataset_id: int) -> int:
    return int(db.scalar(tx, "SELECT subjects FROM datasets WHERE id = :id", id=dataset_id))


def _compare(work: _Work, filling: _Filling) -> None:
    """Stage the records, and say how they differ from what the dataset holds."""
    upload = work.upload
    with db.transaction() as tx:
        db.run(tx, "DELETE FROM upload_records WHERE upload_id = :id", id=upload.id)
        if not filling.stage(tx):
            raise InputError(f"{upload.name} holds no usable record.")
        dataset = refreshing.lock(tx, upload.dataset_id)
        refreshing.check_kind(tx, upload.id, dataset.id)
        work.lease.hold(tx)
        _settle(tx, work, UploadState.COMPARED, **_columns(refreshing.difference(tx, upload.id, dataset)))


def _columns(found: refreshing.Difference) -> dict[str, Any]:
    """What an upload's row says of a difference."""
    return {
        "against": found.against,
        "added": found.added,
        "changed": found.changed,
        "same": found.same,
        "absent": found.absent,
        "examples": json.dumps(found.examples),
    }


def _settle(tx: Connection, work: _Work, to: UploadState, *, reason: str | None = None, **columns: Any) -> None:
    uploads.put_problems(tx, work.upload.id, work.first)
    move_upload(tx, work.upload.id, to, actor=ACTOR, reason=reason, problems=work.problems, **columns)


def _refuse(lease: Lease, work: _Work, words: str) -> None:
    with db.transaction() as tx:
        lease.hold(tx)
        _settle(tx, work, UploadState.REFUSED, reason=words)


def _apply(lease: Lease, upload: Any) -> None:
    """Refresh the dataset as it was confirmed; if it is no longer what was compared, a person looks again."""
    with db.transaction() as tx:
        dataset = refreshing.lock(tx, upload.dataset_id)
        if dataset.revision != upload.against:
            found = refreshing.difference(tx, upload.id, dataset)
            words = "Its dataset has been refreshed in between; this is how they differ now."
            lease.hold(tx)
            move_upload(tx, upload.id, UploadState.COMPARED, actor=ACTOR, reason=words, **_columns(found))
            return
        revision = refreshing.refresh(tx, upload.id, dataset, remove_absent=upload.remove_absent)
        sources.remember(tx, upload, dataset.id)
        lease.hold(tx)
        move_upload(tx, upload.id, UploadState.IMPORTED, actor=ACTOR, revision=revision)
        uploads.forget(tx, upload.id)


@contextmanager
def _own_folder() -> Iterator[Path]:
    """A folder of this process; those that killed ones have left are gone before."""
    top = Path(tempfile.gettempdir())
    for left in top.glob(f"{_FOLDER}*"):
        pid = left.name.removeprefix(_FOLDER).partition("-")[0]
        if pid.isdigit() and not _lives(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def for_pages(words: str, folder: Path) -> str:
    """A reader's sentence without our folder, and with the page's choices in place of the command line's options."""
    for option, choice in (
        ("say with --key-field which it is", "choose another key"),
        ("say with --text-field which it is", "choose another text"),
        ("name another field with --key-field", "choose another key"),
        ("name another field with --text-field", "choose another text"),
    ):
        words = words.replace(option, choice)
    return words.replace(f"{folder}{os.sep}unpacked{os.sep}", "").replace(f"{folder}{os.sep}", "")


def _for_pages(problem: Problem) -> Problem:
    nowhere = Path(os.sep) / "nowhere"
    return Problem(
        problem.where, problem.fault, for_pages(problem.remedy, nowhere), problem.raw[: uploads.STORED_RAW + 1]
    )
