"""A JSONL file read line by line, each record kept in its owner's own words.
Called by `records` alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from webapp.records.jsontext import parse_object
from webapp.records.record import Admission, Problem, Record, file_lines, too_long

_WHITE_SPACE = b" \t\r\n"
_LINES = 20  # that are looked at for the names of members


def jsonl_members(path: Path) -> list[str]:
    """The names of the members that the first records have, in the order in which they come."""
    names: dict[str, None] = {}
    for _, _, line in itertools.islice(file_lines(path), _LINES):
        members = too_long(line) or parse_object(line.strip(_WHITE_SPACE))
        if type(members) is dict:
            names |= dict.fromkeys(members)
    return list(names)


def jsonl_records(path: Path, key_field: str, text_field: str) -> Iterator[Record | Problem]:
    """Each line as a record whose data is the line itself; blank lines are passed over."""
    admission = Admission(path, key_field, text_field)
    for number, offset, line in file_lines(path):
        data = line.strip(_WHITE_SPACE)
        if not data:
            continue
        members = too_long(line) or parse_object(line, offset)
        if type(members) is dict:
            yield admission.admit(number, members, data, data)
        else:
            yield admission.problem(number, members, data)  # type: ignore[arg-type]
