"""A ZIP archive unpacked into a folder that `folder_input` reads: nothing lands outside it, and not more than fits.
The import of an upload calls it for all of an archive, its preview for the first few files.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from webapp.errors import InputError
from webapp.records.escapes import one_line
from webapp.records.images import MAX_FILE_BYTES

MOST_FILES = 100_000
MOST_UNPACKED = 4_000_000_000  # bytes of all files together
_PIECE = 1 << 20
_LEFT_OUT = "__MACOSX"  # what a Mac adds about its files
_ENCRYPTED = 0x1
_ZIP_AGAIN = "make a new ZIP archive of the files"


class Entry(NamedTuple):
    """A file of an archive: by its path in the folder that it is unpacked into."""

    name: str
    info: zipfile.ZipInfo


class Archive:
    """An archive that is open for reading.

    :raises InputError: when it is made or read: it is none, or holds what must not be unpacked.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.name = one_line(name)
        try:
            self._zip = zipfile.ZipFile(stream)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise InputError(
                f"{self.name} is no ZIP archive that can be read ({one_line(str(error))}); {_ZIP_AGAIN}."
            ) from error
        self.entries = self._checked(self._zip.infolist())

    def _checked(self, infos: Sequence[zipfile.ZipInfo]) -> list[Entry]:
        """The files in the order of their names; those of one folder that holds all others by their path in it."""
        if len(infos) > MOST_FILES:
            raise InputError(f"{self.name} holds {len(infos):,} files; {MOST_FILES:,} are read. Cut it in several.")
        files = [info for info in infos if not info.is_dir() and not _hidden(info.filename)]
        for info in files:
            self._check(info)
        tops = {info.filename.partition("/")[0] for info in files}
        inner = len(tops) == 1 and all("/" in info.filename for info in files)
        start = len(next(iter(tops))) + 1 if inner else 0
        return sorted((Entry(info.filename[start:], info) for info in files), key=lambda one: one.name.encode())

    def _check(self, info: zipfile.ZipInfo) -> None:
        name = info.filename
        shown = one_line(name)
        if name.startswith("/") or "\\" in name or ":" in name.partition("/")[0] or ".." in name.split("/"):
            raise InputError(f"{self.name} holds a file that would land outside its folder ({shown}); {_ZIP_AGAIN}.")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise InputError(f"{self.name} holds a link ({shown}); put the file itself in its place.")
        if info.flag_bits & _ENCRYPTED:
            raise InputError(f"{self.name} is protected by a password ({shown}); {_ZIP_AGAIN} without one.")
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InputError(f"{self.name} holds a file whose name is not UTF-8 ({shown}); {_ZIP_AGAIN}.") from None

    def unpack(self, entries: Sequence[Entry], folder: Path, *, most: int = MOST_UNPACKED) -> None:
        """Write files below a folder. What is longer than any file that is read is cut there.

        :param most: bytes of them together.
        :raises InputError: they are too much together, or one cannot be read.
        """
        left = most
        for entry in entries:
            try:
                left -= self._write(entry, folder / entry.name, left)
            except FileExistsError:
                raise InputError(f"{self.name} holds {one_line(entry.name)} twice; {_ZIP_AGAIN}.") from None
            except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
                words = one_line(str(error)) or type(error).__name__
                raise InputError(
                    f"{self.name}: {one_line(entry.name)} cannot be unpacked ({words}); {_ZIP_AGAIN}."
                ) from error
            except OSError as error:
                raise InputError(
                    f"{self.name}: {one_line(entry.name)} cannot be written here ({error.strerror})."
                ) from error

    def _write(self, entry: Entry, path: Path, most: int) -> int:
        """How many bytes were written."""
        path.parent.mkdir(parents=True, exist_ok=True)
        size = 0
        with self._zip.open(entry.info) as source, path.open("xb") as target:
            # What an archive says of its own sizes is not believed.
            while size <= MAX_FILE_BYTES and (piece := source.read(_PIECE)):
                size += len(piece)
                if size > most:
                    raise InputError(f"{self.name} is too large when it is unpacked; cut it in several.")
                target.write(piece)
        return size


def _hidden(name: str) -> bool:
    parts = name.split("/")
    if "\\" in name:  # on another system it is elsewhere: not hidden, but refused
        return False
    return parts[0] == _LEFT_OUT or any(part.startswith(".") and part not in (".", "..") for part in parts)
