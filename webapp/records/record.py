"""What one record is, what one problem is, and what every record must be, whatever file it comes from.
The readers of inputs use it; everybody else takes these names from `records`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from webapp.errors import InputError
from webapp.records.escapes import one_line, shown
from webapp.records.faults import Fault, foreign_content
from webapp.records.images import Image
from webapp.records.jsontext import json_noun, parse_exactly

# How much of a bad record is kept for the set-aside file.
RAW_BYTES = 64 * 1024
# Of one line, row or text file. The API takes 32 MB a request; beyond twice that it is a broken file.
MAX_RECORD_BYTES = 64 * 1024 * 1024
MAX_KEY_CHARACTERS = 1000
# A key is unique in its dataset by an index of PostgreSQL, whose entries hold at most 2,704 bytes.
MAX_KEY_BYTES = 2400
UTF8_MARK = b"\xef\xbb\xbf"
_SHORTEN = "shorten it, or name another field with --key-field"


@dataclass(frozen=True, slots=True)
class Record:
    """One usable record.

    :param position: from 0, in input order, counted over usable records only.
    :param kind: "document" or "image".
    :param data: a JSON object in UTF-8; the owner's own text where the input is JSON.
    :param image: the picture as it will be sent, for kind "image".
    """

    position: int
    key: str
    kind: str
    data: bytes
    image: Image | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """One record that cannot be used; as text, one sentence on one line.

    :param where: file and line, or the file within its folder.
    :param raw: the record as found, at most its first RAW_BYTES; for a file in a folder its path in it.
    """

    where: str
    fault: str
    remedy: str
    raw: bytes

    def __str__(self) -> str:
        return f"{self.where}: {self.fault}; {self.remedy}."


class Admission:
    """Decides line by line (or row by row) what becomes a record of one file, and numbers the records."""

    def __init__(self, path: Path, key_field: str, text_field: str) -> None:
        self._name = one_line(path.name)
        self._key_field = key_field
        self._text_field = text_field
        self._first_lines = FirstLines()
        self._position = 0

    def admit(self, line: int, members: dict[str, Any], data: bytes, raw: bytes) -> Record | Problem:
        """The record, or what is wrong with it.

        :param line: from 1, where it starts in the file.
        :param members: its parsed members or columns; `data` is their JSON text.
        """
        key = self._key(members, data)
        if type(key) is not str:
            return self.problem(line, key, raw)  # type: ignore[arg-type]
        text = members.get(self._text_field)
        if type(text) is not str or not text or text.isspace():
            return self.problem(line, self._text_fault(members), raw)
        first = self._first_lines.remember(key, line)
        if first:
            fault = Fault(f'the key "{one_line(key)}" is already that of line {first}', "give each record its own key")
            return self.problem(line, fault, raw)
        record = Record(self._position, key, "document", data)
        self._position += 1
        return record

    def problem(self, line: int, fault: Fault, raw: bytes) -> Problem:
        return Problem(f"{self._name}, line {line}", fault.fault, fault.remedy, raw[:RAW_BYTES])

    def _key(self, members: dict[str, Any], data: bytes) -> str | Fault:
        value = members.get(self._key_field)
        if type(value) is float:
            exact = parse_exactly(data)
            value = exact[self._key_field] if type(exact) is dict else value
        if type(value) is int:
            value = str(value)
        if type(value) is str:
            return key_fault(value) or value
        if self._key_field not in members:
            return self._missing(members, "--key-field", self._key_field)
        found = "a number with a fraction" if type(value) is float else json_noun(value)
        return Fault(f'its key in "{one_line(self._key_field)}" is {found}', "make it text or a whole number")

    def _text_fault(self, members: dict[str, Any]) -> Fault:
        field = one_line(self._text_field)
        if self._text_field not in members:
            return self._missing(members, "--text-field", self._text_field)
        text = members[self._text_field]
        if type(text) is str:
            return Fault(f'its text in "{field}" is empty', "fill it, or take the record out")
        remedy = "make it text in quotes, or name another field with --text-field"
        return Fault(f'its "{field}" is {json_noun(text)}, not text', remedy)

    @staticmethod
    def _missing(members: dict[str, Any], option: str, field: str) -> Fault:
        others = ", ".join(f'"{one_line(name, 40)}"' for name in list(members)[:8]) or "nothing"
        return Fault(f'it has no "{one_line(field)}"', f"add it, or name another field with {option} (it has {others})")


def key_fault(key: str) -> Fault | None:
    """Why a text cannot be a key, or None."""
    if not key or key.isspace():
        return Fault("its key is empty", "give the record a key")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return Fault("its key holds half a character (a lone surrogate)", "mend the key")
    if len(key) > MAX_KEY_CHARACTERS:
        return Fault(f"its key has {len(key):,} characters; {MAX_KEY_CHARACTERS:,} are allowed", _SHORTEN)
    if size > MAX_KEY_BYTES:
        return Fault(f"its key has {size:,} bytes in UTF-8; {MAX_KEY_BYTES:,} are allowed", _SHORTEN)
    if "\0" in key:
        return Fault("its key holds a NUL character", "take that out of the key")
    return None


class FirstLines:
    """On which line, or as which record, a key came first: 12 bytes a slot, where a dict would take 130 bytes a key.

    An open-addressing table of Python's own 64-bit string hash, which nobody outside the process can aim at. Two
    keys of a million share a hash once in 37 million files.
    """

    def __init__(self) -> None:
        self._slots(1 << 12)
        self._used = 0

    def _slots(self, count: int) -> None:
        self._mask = count - 1
        self._hashes = array("Q", bytes(8 * count))
        self._lines = array("I", bytes(4 * count))

    def remember(self, key: str, line: int) -> int:
        """The line the key was first seen on, or 0 if this is the first time."""
        hashed = hash(key) & 0xFFFF_FFFF_FFFF_FFFF
        hashes, lines, mask = self._hashes, self._lines, self._mask
        slot = hashed & mask
        while lines[slot]:
            if hashes[slot] == hashed:
                return lines[slot]
            slot = (slot + 1) & mask
        hashes[slot] = hashed
        lines[slot] = line
        self._used += 1
        if self._used * 3 > mask * 2:
            self._grow()
        return 0

    def _grow(self) -> None:
        old = zip(self._hashes, self._lines, strict=True)
        self._slots(2 * (self._mask + 1))
        hashes, lines, mask = self._hashes, self._lines, self._mask
        for hashed, line in old:
            if line:
                slot = hashed & mask
                while lines[slot]:
                    slot = (slot + 1) & mask
                hashes[slot] = hashed
                lines[slot] = line


def file_lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """The lines of a UTF-8 file with their numbers from 1 and offsets in bytes, without byte order marks.

    A line longer than MAX_RECORD_BYTES comes cut, at one byte more than that.

    :raises InputError: the file cannot be read, or by its first bytes is no UTF-8 text.
    """
    try:
        with path.open("rb", buffering=1 << 18) as stream:
            foreign = foreign_content(stream.read(4))
            stream.seek(0)
            if foreign:
                raise InputError(f"{shown(path)}: {foreign.fault}; {foreign.remedy}.")
            yield from _lines(stream)
    except OSError as error:
        raise InputError(
            f"{shown(path)} cannot be read: {error.strerror}; check the file and its permissions."
        ) from error


def _lines(stream: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    number = offset = 0
    limit = MAX_RECORD_BYTES + 1
    while line := stream.readline(limit):
        number += 1
        start = offset
        offset += len(line)
        if len(line) == limit and line[-1:] != b"\n":
            offset += _skip_line(stream)
        # Also within the file: files that each begin with a mark may have been joined.
        if line[:3] == UTF8_MARK:
            start += 3
            line = line[3:]
        yield number, start, line


def _skip_line(stream: BinaryIO) -> int:
    skipped = 0
    while part := stream.readline(1 << 20):
        skipped += len(part)
        if part[-1:] == b"\n":
            break
    return skipped


def too_long(line: bytes) -> Fault | None:
    """The fault of a line that `file_lines` had to cut, or None."""
    if len(line) <= MAX_RECORD_BYTES - len(UTF8_MARK):
        return None
    return Fault(f"it is longer than {MAX_RECORD_BYTES >> 20} MB", "cut it into smaller records")
