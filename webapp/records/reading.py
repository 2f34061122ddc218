"""The owner's file or folder read as records and problems, one after the other, in flat memory.
The import of a dataset calls it, and the command line, to check an input before anything is sent.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from webapp.errors import InputError
from webapp.records.csv_input import csv_columns, csv_records
from webapp.records.escapes import one_line, shown
from webapp.records.folder_input import folder_records
from webapp.records.images import Image
from webapp.records.jsonl_input import jsonl_members, jsonl_records
from webapp.records.record import RAW_BYTES, Problem, Record

__all__ = [
    "RAW_BYTES",
    "SHOWN_PROBLEMS",
    "Image",
    "Problem",
    "Record",
    "problems_report",
    "read_records",
    "record_fields",
]

_READERS = {".jsonl": jsonl_records, ".ndjson": jsonl_records, ".csv": csv_records, ".tsv": csv_records}
_HINTS = {
    ".json": "write one object per line, for instance with `jq -c '.[]' {0} > records.jsonl`",
    ".xlsx": "save the sheet as CSV UTF-8",
    ".xls": "save the sheet as CSV UTF-8",
    ".gz": "unpack it first",
    ".zip": "unpack it first",
}
_ACCEPTED = "a .jsonl (or .ndjson) file, a .csv (or .tsv) file, or a folder of text files or images"
SHOWN_PROBLEMS = 20


def read_records(path: Path, *, key_field: str = "key", text_field: str = "text") -> Iterator[Record | Problem]:
    """Each record of the input in its order, and a Problem in the place of each one that cannot be used.

    May be called again for the same input and yields the same. Memory does not grow with the input, but for 12 to
    36 bytes a record, by which a doubled key is known.

    :param key_field: the member or column that holds a record's key, unique in the input.
    :param text_field: the member or column that holds a record's text.
    :raises InputError: at once, before anything is yielded, when the input as a whole is unusable; later only
        when reading the file itself fails.
    """
    found = _reader(path, key_field, text_field)
    first = next(found, None)
    if first is None:
        raise InputError(
            f"{shown(path)} holds no records; the input must be {_ACCEPTED}, with at least one record in it."
        )
    return itertools.chain((first,), found)


def record_fields(path: Path) -> list[str]:
    """The names of what a file's records hold: the columns of a table, the members of the first objects.

    :param path: a file, or the beginning of one.
    :raises InputError: it is no text, or has another ending.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(_unknown_ending(path))
    return csv_columns(path) if reader is csv_records else jsonl_members(path)


def problems_report(first: Sequence[Problem], count: int) -> str:
    """What people are told of unusable records: the first twenty, one a line, and how many there are in all.

    :param first: the first problems; those after the twentieth are not shown.
    :param count: of all problems, shown or not.
    """
    title = "1 record cannot be used:" if count == 1 else f"{count:,} records cannot be used:"
    lines = [title, *(f"  - {problem}" for problem in first[:SHOWN_PROBLEMS])]
    unshown = count - min(len(first), SHOWN_PROBLEMS)
    if unshown > 0:
        lines.append(f"  … and {unshown:,} more")
    return "\n".join(lines)


def _reader(path: Path, key_field: str, text_field: str) -> Iterator[Record | Problem]:
    try:
        if path.is_dir():
            return folder_records(path, key_field, text_field)
        if not path.exists():
            raise InputError(f"There is no file or folder {shown(path)}; check the name.")
    except (OSError, ValueError) as error:
        # ValueError: a NUL in the name. OSError: a folder on the way may not be entered, or the name is too long.
        raise InputError(f"The input {shown(path)} cannot be opened: {error}.") from error
    if not path.is_file():
        raise InputError(f"{shown(path)} is neither a regular file nor a folder; the input must be {_ACCEPTED}.")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(_unknown_ending(path))
    if not os.access(path, os.R_OK):
        raise InputError(f"{shown(path)} may not be read by this user; change its permissions.")
    if path.stat().st_size == 0:
        raise InputError(f"{shown(path)} is empty; the input must hold at least one record.")
    return reader(path, key_field, text_field)


def _unknown_ending(path: Path) -> str:
    hint = _HINTS.get(path.suffix.lower())
    remedy = hint.format(one_line(path.name)) if hint else f"the input must be {_ACCEPTED}"
    return f"{shown(path)} has an ending Batchdesk does not read ({one_line(path.suffix) or 'none'}); {remedy}."
