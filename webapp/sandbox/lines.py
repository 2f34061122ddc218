"""Turns result rows into the bytes of a results stream, with the faults that were asked for.

The results route streams what comes out of here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from .faults import Fault
from .hashing import identifier
from .tokens import dumps

_CHUNK = 1 << 16


def encode_lines(rows: Iterable[dict[str, Any]], faults: Iterable[Fault] = ()) -> Iterator[bytes]:
    """The rows as lines of JSON, in chunks of about 64 kB, spoilt as asked.

    ``truncate`` is not done here: it concerns the connection.
    """
    asked = {fault.name: int(fault.argument if fault.argument is not None else 1) for fault in faults}
    lines = (dumps(row) for row in _spoil_rows(rows, asked)) if asked else (dumps(row) for row in rows)
    end = b"\r\n" if "crlf" in asked else b"\n"
    chunk = bytearray()
    for line in _spoil_lines(lines, asked) if asked else lines:
        chunk += line
        chunk += end
        if len(chunk) >= _CHUNK:
            yield bytes(chunk)
            chunk.clear()
    if chunk:
        yield bytes(chunk)


def _spoil_rows(rows: Iterable[dict[str, Any]], asked: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Leaves out the first rows, repeats the next ones, gives those after them a type nobody knows."""
    missing, duplicate, strange = (asked.get(name, 0) for name in ("missing", "duplicate", "unknown_type"))
    repeated: list[dict[str, Any]] = []
    for row in rows:
        if missing > 0:
            missing -= 1
            continue
        if strange > 0:
            strange -= 1
            row = row | {"result": {"type": "sandbox_unknown", "note": "a result type of some later day"}}
        elif len(repeated) < duplicate:
            repeated.append(row)
        yield row
    yield from repeated
    for _ in range(asked.get("unknown", 0)):
        yield {"custom_id": identifier("nobodys-"), "result": {"type": "canceled"}}


def _spoil_lines(lines: Iterable[bytes], asked: dict[str, int]) -> Iterator[bytes]:
    garbage, blank = asked.get("garbage", 0), "blank" in asked
    for line in lines:
        if garbage > 0:
            garbage -= 1
            yield b'{"custom_id": "half a li'
        if blank:
            blank = False
            yield b""
        yield line
    yield from [b"<html>not JSON</html>"] * garbage
