"""Writes an input and reads it back, for the tests of reading."""

from __future__ import annotations

from pathlib import Path

from webapp.records.reading import Problem, Record, read_records


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path, **fields: str) -> tuple[list[Record], list[Problem]]:
    found = list(read_records(path, **fields))
    return [f for f in found if isinstance(f, Record)], [f for f in found if isinstance(f, Problem)]
