"""The first records of an upload as the readers see them, before anything is imported, and how far an import is.
Only the beginning of a file is read, and of an archive its list of files and the first few of them.
"""

from __future__ import annotations

import io
import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.datasets import uploads
from webapp.datasets.intake import for_pages
from webapp.errors import InputError
from webapp.records import jsontext
from webapp.records.archives import Archive
from webapp.records.escapes import one_line
from webapp.records.reading import Image, Problem, Record, read_records, record_fields

ROWS = 10
HEAD_CHUNKS = 2  # of a file, from which its first records are read
MOST_PREVIEWED = 32_000_000  # bytes of the first files of an archive together
WORDS = 300  # characters of a text
KEYS = ("key", "id", "uuid", "guid", "slug", "number", "no", "ref", "reference", "sku", "email", "name")
TEXTS = ("text", "body", "content", "message", "description", "comment", "review", "abstract", "summary", "document")
PLAIN = ("key", "text")  # of an archive's files, which have no columns


@dataclass(frozen=True, slots=True)
class Row:
    """One record in a preview: its key, how its text begins and what else it holds; or what is wrong with it."""

    key: str = ""
    text: str = ""
    rest: str = ""
    picture: int | None = None  # the number of the file that it is, of an archive
    shape: str = ""
    problem: Problem | None = None


@dataclass(slots=True)
class Preview:
    """What a page shows of an upload whose columns are being chosen.

    :param fields: the columns or members to choose from; none of an archive.
    :param files: how many files an archive holds.
    :param fault: why nothing can be shown.
    """

    key_field: str
    text_field: str
    fields: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    files: int | None = None
    fault: str | None = None

    @property
    def kind(self) -> str:
        return "image" if any(row.picture is not None for row in self.rows) else "document"


def preview(tx: Connection, upload: Any, key: str | None, text: str | None) -> Preview:
    """The first records of an upload.

    :param key: the field that somebody chose for the key, if any; likewise `text`.
    """
    with tempfile.TemporaryDirectory(prefix="batchdesk-preview-") as top:
        folder = Path(top)
        path = folder / uploads.file_name(upload.name)
        archive = path.suffix.lower() == ".zip"
        shown = Preview(key or upload.key_field or PLAIN[0], text or upload.fixed_text_field or PLAIN[1])
        try:
            (_of_archive if archive else _of_file)(tx, upload, path, shown, (key, text))
        except InputError as error:
            shown.fault = for_pages(str(error), folder)
    return shown


def _of_file(tx: Connection, upload: Any, path: Path, shown: Preview, chosen: tuple[str | None, str | None]) -> None:
    head = b"".join(itertools.takewhile(bool, (uploads.chunk(tx, upload.id, n) or b"" for n in range(HEAD_CHUNKS))))
    cut = len(head) < upload.size
    path.write_bytes(head[: head.rfind(b"\n") + 1] if cut and b"\n" in head else head)
    shown.fields = record_fields(path)
    key = chosen[0] or upload.key_field
    text = upload.fixed_text_field or chosen[1] or upload.text_field
    shown.key_field = key if key in shown.fields else _guess(shown.fields, KEYS, 0)
    others = [name for name in shown.fields if name != shown.key_field] or shown.fields
    shown.text_field = text if text in shown.fields or upload.fixed_text_field else _guess(others, TEXTS, -1)
    found = list(itertools.islice(read_records(path, key_field=shown.key_field, text_field=shown.text_field), ROWS + 1))
    if cut and len(found) <= ROWS:
        found = found[:-1]  # it may go on where the beginning ends
    shown.rows = [_row(one, shown) for one in found[:ROWS]]


def _guess(names: Sequence[str], usual: Sequence[str], otherwise: int) -> str:
    """The name that people usually give, else the one at a place."""
    lower = {name.strip().lower(): name for name in reversed(names)}
    for name in usual:
        if name in lower:
            return lower[name]
    return names[otherwise] if names else usual[0]


def _of_archive(tx: Connection, upload: Any, path: Path, shown: Preview, _: tuple[str | None, str | None]) -> None:
    archive = opened(tx, upload)
    shown.files = len(archive.entries)
    first = archive.entries[:ROWS]
    path.mkdir()
    archive.unpack(first, path, most=MOST_PREVIEWED)
    numbers = {entry.name: number for number, entry in enumerate(first, 1)}
    found = read_records(path, key_field=shown.key_field, text_field=shown.text_field)
    shown.rows = [_row(one, shown, numbers) for one in found]


def opened(tx: Connection, upload: Any) -> Archive:
    """An upload that is an archive, read where it lies."""
    return Archive(io.BufferedReader(_Stored(tx, upload)), upload.name)


def picture(tx: Connection, upload: Any, number: int) -> Image | None:
    """One of the first images of an archive as it will be sent; None: it is none."""
    with tempfile.TemporaryDirectory(prefix="batchdesk-preview-") as top:
        try:
            archive = opened(tx, upload)
            archive.unpack(archive.entries[number - 1 : number], Path(top), most=MOST_PREVIEWED)
            found = next(read_records(Path(top)), None)
        except InputError:
            return None
    return found.image if isinstance(found, Record) else None


def _row(one: Record | Problem, shown: Preview, numbers: dict[str, int] | None = None) -> Row:
    if isinstance(one, Problem):
        return Row(problem=Problem(one.where, one.fault, for_pages(one.remedy, Path("nowhere")), one.raw))
    members = jsontext.loads(one.data)
    if one.image is not None:
        shape = f"{one.image.width} × {one.image.height}, {one.image.media_type}"
        return Row(one.key, picture=(numbers or {}).get(one.key), shape=shape)
    text = str(members.get(shown.text_field, ""))
    named = (shown.key_field, shown.text_field, "file" if numbers else shown.key_field)
    rest = {name: value for name, value in members.items() if name not in named}
    return Row(one.key, _flat(text), _flat(", ".join(f"{name}: {_told(value)}" for name, value in rest.items())))


def _told(value: object) -> str:
    return value if isinstance(value, str) else jsontext.dumps(value).decode()


def _flat(text: str) -> str:
    """How a text begins, on one line."""
    return one_line(" ".join(text[: 10 * WORDS].split()), WORDS)


class _Stored(io.RawIOBase):
    """An upload's bytes as a file that can be sought in; one chunk of it is held."""

    def __init__(self, tx: Connection, upload: Any) -> None:
        self._read: Callable[[int], bytes | None] = lambda ordinal: uploads.chunk(tx, upload.id, ordinal)
        self._size = upload.size
        self._at = 0
        self._held = (-1, b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError(22, "before the beginning")
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        ordinal, start = divmod(self._at, uploads.CHUNK_BYTES)
        if self._held[0] != ordinal:
            self._held = (ordinal, self._read(ordinal) or b"")
        piece = self._held[1][start : start + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def uploading(tx: Connection, ids: Sequence[int]) -> list[Any]:
    """How far the imports of some uploads are."""
    if not ids:
        return []
    return list(
        db.rows(
            tx,
            "SELECT u.id, u.state, u.size, coalesce(p.fetched, 0) AS fetched, coalesce(p.records, 0) AS records "
            "FROM uploads u LEFT JOIN upload_progress p ON p.upload_id = u.id WHERE u.id = ANY(:ids)",
            ids=list(ids),
        )
    )
