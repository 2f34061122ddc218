"""Puts result lines together for the wire, and spoils them as was asked for.

The results route streams what comes out of here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .body import loads
from .faults import Fault
from .hashing import identifier
from .tokens import dumps

_CHUNK = 1 << 16


def spoil_lines(lines: Iterable[bytes], faults: Iterable[Fault]) -> Iterator[bytes]:
    """The lines in chunks of about 64 kB, with the faults of one call.

    ``truncate`` is not done here: it concerns the connection.
    """
    asked = {fault.name: int(fault.argument if fault.argument is not None else 1) for fault in faults}
    chunk: list[bytes] = []
    size = 0
    for line in _spoil_text(_spoil_rows(lines, asked), asked) if asked else lines:
        chunk.append(line)
        size += len(line)
        if size >= _CHUNK:
            yield b"".join(chunk)
            chunk, size = [], 0
    if chunk:
        yield b"".join(chunk)


def _spoil_rows(lines: Iterable[bytes], asked: dict[str, int]) -> Iterator[bytes]:
    """Leaves out the first rows, gives the next ones a type nobody knows, repeats those after them at the end."""
    missing, duplicate, strange = (asked.get(name, 0) for name in ("missing", "duplicate", "unknown_type"))
    repeated: list[bytes] = []
    for line in lines:
        if missing > 0:
            missing -= 1
            continue
        if strange > 0:
            strange -= 1
            result = {"type": "sandbox_unknown", "note": "a result type of some later day"}
            yield dumps(loads(line) | {"result": result}) + b"\n"
            continue
        if len(repeated) < duplicate:
            repeated.append(line)
        yield line
    yield from repeated
    for _ in range(asked.get("unknown", 0)):
        yield dumps({"custom_id": identifier("nobodys-"), "result": {"type": "canceled"}}) + b"\n"


def _spoil_text(lines: Iterable[bytes], asked: dict[str, int]) -> Iterator[bytes]:
    garbage, blank = asked.get("garbage", 0), "blank" in asked
    end = b"\r\n" if "crlf" in asked else b"\n"
    for line in lines:
        if garbage > 0:
            garbage -= 1
            yield b'{"custom_id": "half a li' + end
        if blank:
            blank = False
            yield end
        yield line[:-1] + end
    yield from [b"<html>not JSON</html>" + end] * garbage
