"""Records from a plugin's source: read to the end into a file of this process first, then imported like any others.
So no transaction is open while a source waits for its network. The step `import` calls it.

The source runs in a process of its own (see `webapp.batches.bounded`), which writes what it gives, a line each.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel

from webapp.batches.bounded import Bounds, Broke, bounded
from webapp.errors import InputError, PluginError
from webapp.hooks import Source, calls
from webapp.records import jsontext
from webapp.records.images import Image
from webapp.records.reading import Problem, Record

SILENT_SECONDS = 600  # in which a source must give something
CHUNK_RECORDS = 2_000
CHUNK_SECONDS = 1.0
CHUNKS = 1 << 40  # more than any source has: it says itself when it is at its end


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a source has been read.

    :param size: bytes that were written of it.
    """

    records: int
    size: int


def spool(source: Source[Any], settings: BaseModel, path: Path) -> Iterator[Reached]:
    """Write all that a source gives to a file, and say every second or so how far it is.

    :raises InputError: it cannot be read to its end; says why, and after which record.
    """
    spooling = _Spooling(source, settings, path)
    for _, made in bounded(range(CHUNKS), spooling.chunk, Bounds(SILENT_SECONDS, SILENT_SECONDS, tries=1)):
        if isinstance(made, Broke):
            raise InputError(f"Source '{source.name}' {made.words}.")
        records, size, over, fault = made
        if fault is not None:
            raise InputError(fault)
        yield Reached(records, size)
        if over:
            return


def spooled(path: Path) -> Iterator[Record | Problem]:
    """What was written, in order."""
    position = 0
    with path.open("rb") as stream:
        for line in stream:
            found = _read(jsontext.loads(line), position)
            position += isinstance(found, Record)
            yield found


class _Spooling:
    """The source as the other process reads it, chunk by chunk."""

    def __init__(self, source: Source[Any], settings: BaseModel, path: Path) -> None:
        self._source, self._settings, self._path = source, settings, path
        self._found: Iterator[Record | Problem] | None = None
        self._file: BinaryIO | None = None
        self._records = self._size = 0

    def chunk(self, _: int) -> tuple[int, int, bool, str | None]:
        """Write the next records: (records and bytes so far, whether that were all, why it cannot go on)."""
        if self._found is None or self._file is None:
            self._found = calls.records(self._source, self._settings)
            self._file = self._path.open("wb")
        over, fault = True, None
        end = time.monotonic() + CHUNK_SECONDS
        first = self._records
        try:
            for one in self._found:
                self._size += self._file.write(_line(one))
                self._records += 1
                if self._records - first >= CHUNK_RECORDS or time.monotonic() > end:
                    over = False
                    break
            self._file.flush()
        except (InputError, PluginError) as error:
            fault = str(error)
        except OSError as error:  # of a source it has become a PluginError
            fault = f"The worker cannot keep what comes in: {error.strerror}. See the disk of its machine."
        return self._records, self._size, over, fault


def _line(found: Record | Problem) -> bytes:
    if isinstance(found, Problem):
        return jsontext.dumps([found.where, found.fault, found.remedy, _text(found.raw)]) + b"\n"
    image = found.image
    picture = image and [image.media_type, image.width, image.height, _text(image.content)]
    return jsontext.dumps([found.key, found.kind, found.data.decode(), picture, True]) + b"\n"


def _read(line: list[Any], position: int) -> Record | Problem:
    if len(line) == 4:
        where, fault, remedy, raw = line
        return Problem(where, fault, remedy, base64.b64decode(raw))
    key, kind, data, picture, _ = line
    image = None
    if picture is not None:
        media_type, width, height, text = picture
        content = base64.b64decode(text)
        image = Image(hashlib.sha256(content).digest(), media_type, width, height, content)
    return Record(position, key, kind, data.encode(), image)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
