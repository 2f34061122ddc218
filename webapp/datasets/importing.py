"""The step `import`: records become a dataset, in one transaction, or nothing does.
The command line calls it with the reader's records; bad ones are set aside or stop it in words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.errors import InputError
from webapp.records.reading import SHOWN_PROBLEMS, Image, Problem, Record, problems_report

SUBJECT_COLUMNS = ("dataset_id", "position", "kind", "key", "content_hash", "image", "size", "data")


def import_records(
    tx: Connection, records: Iterable[Record], *, name: str, source: Path, text_field: str, owner: str
) -> tuple[int, str]:
    """Store records as a new dataset: (its id, the kind of its subjects).

    :param records: in input order, problems already taken out (see `Sieve`).
    :raises InputError: there is no record at all.
    """
    dataset_id = new_dataset(tx, name=name, source=str(source), text_field=text_field, owner=owner)
    kinds: set[str] = set()
    count = db.copy_rows(tx, "subjects", SUBJECT_COLUMNS, subject_rows(dataset_id, records, kinds))
    if not count:
        raise InputError(f"{source}: it holds no usable record, so there is nothing to run.")
    holds(tx, dataset_id, count)
    return dataset_id, kinds.pop()


def new_dataset(tx: Connection, *, name: str, source: str, text_field: str, owner: str) -> int:
    """A dataset that holds nothing yet; its id."""
    dataset_id: int = db.scalar(
        tx,
        "INSERT INTO datasets (name, source, text_field, created_by) VALUES (:name, :source, :text_field, :owner) "
        "RETURNING id",
        name=name,
        source=source.encode("utf-8", "backslashreplace").decode(),
        text_field=text_field,
        owner=owner,
    )
    return dataset_id


def holds(tx: Connection, dataset_id: int, count: int) -> None:
    """Say how many subjects a dataset has been filled with."""
    db.run(tx, "UPDATE datasets SET subjects = :count WHERE id = :id", count=count, id=dataset_id)


def subject_rows(dataset_id: int, records: Iterable[Record], kinds: set[str]) -> Iterator[tuple[Any, ...]]:
    """The records as rows of SUBJECT_COLUMNS; their images are stored on the way, their kinds noted."""
    for record in records:
        kinds.add(record.kind)
        image = record.image
        if image is not None:
            _store_image(image)
        digest = hashlib.sha256(record.data + (image.sha256 if image else b"")).digest()
        sha = image.sha256 if image else None
        data = record.data.decode()
        yield (dataset_id, record.position, record.kind, record.key, digest, sha, len(record.data), data)


def _store_image(image: Image) -> None:
    """Store an image once, by its content. In a transaction of its own: its COPY is busy with the subjects."""
    with db.transaction() as tx:
        db.run(
            tx,
            "INSERT INTO blobs (sha256, media_type, width, height, size, content) "
            "VALUES (:sha256, :media_type, :width, :height, :size, :content) "
            # Not dropped as needed by nobody before its record is committed: see `webapp.runs.retention`.
            "ON CONFLICT (sha256) DO UPDATE SET wanted_at = now()",
            sha256=image.sha256,
            media_type=image.media_type,
            width=image.width,
            height=image.height,
            size=len(image.content),
            content=image.content,
        )


class Sieve:
    """Lets records through and keeps problems back: the first twenty in words, and a count of all.

    :param put: where each problem is set aside; None: the first problem ends the import, once all are known.
    """

    def __init__(self, put: Callable[[Problem], None] | None) -> None:
        self._put = put
        self.first: list[Problem] = []
        self.count = 0

    def records(self, found: Iterable[Record | Problem]) -> Iterator[Record]:
        """The records among what a reader found, in order.

        :raises InputError: at the end, when there were problems and they are not to be set aside.
        """
        for one in found:
            if isinstance(one, Problem):
                self._keep(one)
            elif self._put is not None or not self.count:
                yield one
        if self.count and self._put is None:
            raise InputError(problems_report(self.first, self.count))

    def _keep(self, problem: Problem) -> None:
        if self.count < SHOWN_PROBLEMS:
            self.first.append(problem)
        self.count += 1
        if self._put is not None:
            self._put(problem)
