"""A CSV file (RFC 4180, strictly) read row by row, each row as an object of column and text.
Called by `records` alone.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import orjson

from webapp.errors import InputError
from webapp.records.escapes import one_line, shown
from webapp.records.faults import Fault, not_utf8
from webapp.records.record import MAX_RECORD_BYTES, RAW_BYTES, Admission, Problem, Record, file_lines, too_long

_DELIMITERS = (",", ";", "\t")
_QUOTES = "close each quoted field, and double the quotes within it"


def csv_records(path: Path, key_field: str, text_field: str) -> Iterator[Record | Problem]:
    """Each row below the header as a record; blank lines are passed over.

    :raises InputError: there is no header, or it lacks the column of the key or of the text.
    """
    # The csv module's limit is one for the whole process; raising it takes nothing from other users.
    csv.field_size_limit(MAX_RECORD_BYTES)
    admission = Admission(path, key_field, text_field)
    wanted = (key_field, text_field)
    rows = _Rows(path, _delimiter(path, wanted))
    header = _header(path, rows, wanted)
    found = False
    for row in rows:
        found = True
        fault = rows.fault or _ragged(row, header)
        if fault:
            yield admission.problem(rows.first_line, fault, rows.raw())
        else:
            members = dict(zip(header, row, strict=True))
            yield admission.admit(rows.first_line, members, orjson.dumps(members), rows.raw())
    if not found:
        raise InputError(f"{shown(path)} has a header but no records below it.")


def csv_columns(path: Path) -> list[str]:
    """The names in the header; none when it cannot be read."""
    rows = _Rows(path, _delimiter(path, ()))
    header = next(rows, [])
    return [] if rows.fault else header


def _ragged(row: list[str], header: list[str]) -> Fault | None:
    if len(row) == len(header):
        return None
    fields = "1 field" if len(row) == 1 else f"{len(row)} fields"
    fault = f"it has {fields} where the header has {len(header)}"
    return Fault(fault, "quote fields that hold the delimiter, and fill up short rows")


def _header(path: Path, rows: _Rows, wanted: tuple[str, str]) -> list[str]:
    header = next(rows, [])
    if rows.fault:
        raise InputError(f"{shown(path)}, line {rows.first_line}: {rows.fault.fault}; {rows.fault.remedy}.")
    columns = ", ".join(f'"{one_line(name, 40)}"' for name in header[:20]) or "no column at all"
    for name, option in zip(wanted, ("--key-field", "--text-field"), strict=True):
        if name not in header:
            remedy = f"name the columns in the first line, or say with {option} which it is"
            raise InputError(f'{shown(path)} has no column "{one_line(name)}" (it has {columns}); {remedy}.')
    if len(set(header)) < len(header):
        doubled = next(name for name in header if header.count(name) > 1)
        raise InputError(f'{shown(path)} has more than one column named "{one_line(doubled)}"; give each its own name.')
    return header


def _delimiter(path: Path, wanted: tuple[str, ...]) -> str:
    """The delimiter by which the first line names the wanted columns, else the one by which it names most."""
    first = next((line for _, _, line in file_lines(path) if line.strip()), b"").decode("utf-8", "replace")

    def fitness(delimiter: str) -> tuple[bool, int]:
        try:
            names = next(csv.reader([first], delimiter=delimiter))
        except csv.Error:
            return False, 0
        return set(wanted) <= set(names), len(names)

    return max(_DELIMITERS, key=fitness)


class _Rows:
    """The rows of the file, and of the one at hand its first line, its fault, and its bytes as found.

    The csv module is fed with text; a row whose bytes are no UTF-8, or too many, is read all the same, so that
    the next row is found, and has its `fault` set.
    """

    def __init__(self, path: Path, delimiter: str) -> None:
        self._lines = file_lines(path)
        self._reader = csv.reader(self._decoded(), delimiter=delimiter, strict=True)
        self._taken: list[bytes] = []
        self._taken_bytes = 0
        self.first_line = 0
        self.fault: Fault | None = None

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        row: list[str] = []
        self.fault = None
        # The reader gives a blank line as a row without fields.
        while not row and not self.fault:
            self._taken.clear()
            self._taken_bytes = 0
            try:
                row = next(self._reader)
            except csv.Error as error:
                # The reader has let go of the row and goes on with the next line.
                self.fault = self.fault or _syntax_fault(str(error))
        return row

    def raw(self) -> bytes:
        """The row's lines as found, or as much of them as is kept."""
        return b"".join(self._taken).rstrip(b"\r\n")[:RAW_BYTES]

    def _decoded(self) -> Iterator[str]:
        for number, offset, line in self._lines:
            if not self._taken:
                self.first_line = number
            if self._taken_bytes < RAW_BYTES:
                self._taken.append(line)
                self._taken_bytes += len(line)
            self.fault = self.fault or too_long(line)
            try:
                yield line.decode()
            except UnicodeDecodeError as error:
                self.fault = self.fault or not_utf8(error, offset)
                yield line.decode("utf-8", "surrogateescape")


def _syntax_fault(message: str) -> Fault:
    """The csv module's complaint in words for people."""
    if message.startswith("unexpected end of data"):
        return Fault("a quoted field begun here is not closed before the file ends", _QUOTES)
    if "expected after" in message:
        return Fault("a quoted field goes on after its closing quote", _QUOTES)
    if message.startswith("new-line character"):
        return Fault("a bare carriage return stands in an unquoted field", "end lines with a line feed")
    if message.startswith("field larger"):
        return Fault(f"a field is longer than {MAX_RECORD_BYTES >> 20} MB; perhaps a quote is not closed", _QUOTES)
    return Fault(f"it is not CSV: {message}", _QUOTES)
