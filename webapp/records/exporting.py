"""The outputs of a run as lines of JSONL or CSV, and the files they and the set-aside records are written to.
The export of a run and the command line call it; where the rows come from is not its matter.
"""

from __future__ import annotations

import csv
import io
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from webapp.errors import InputError
from webapp.records.escapes import shown, visible
from webapp.records.jsontext import dumps, loads
from webapp.records.record import RAW_BYTES, Problem

COLUMNS = ("key", "status", "output", "error", "custom_id", "attempts")
# What makes a spreadsheet take a cell for a formula, full-width forms included, also behind white space; and the
# characters some strip before they look. After OWASP's page on CSV injection.
_FORMULA = re.compile("[\t\r\n]|\\s*[=+\\-@\uff1d\uff0b\uff0d\uff20]")
# Between the tokens of JSON text a line end means no more than a space; within its strings it cannot stand.
_LINE_ENDS = str.maketrans("\r\n", "  ")


class OutputRow(NamedTuple):
    """What became of one subject.

    :param output_json: the output's JSON text as stored, or None without one.
    :param attempts: how often it was asked; 0 when never sent.
    """

    key: str
    status: str
    output_json: str | None
    error: str | None
    custom_id: str | None
    attempts: int


def jsonl_line(row: OutputRow) -> bytes:
    """The row as one JSON object and a line feed; the output is the stored text, escape for escape."""
    output = b"null" if row.output_json is None else _verbatim(row.output_json)
    return b'{"key":%b,"status":%b,"output":%b,"error":%b,"custom_id":%b,"attempts":%d}\n' % (
        dumps(row.key),
        dumps(row.status),
        output,
        dumps(row.error),
        dumps(row.custom_id),
        row.attempts,
    )


def _verbatim(output_json: str) -> bytes:
    if "\n" in output_json or "\r" in output_json:
        output_json = output_json.translate(_LINE_ENDS)
    # A lone surrogate that never went through the database becomes the escape JSON has for it.
    return output_json.encode("utf-8", "backslashreplace")


def csv_lines(rows: Iterable[OutputRow]) -> Iterator[bytes]:
    """The header, then each row, in UTF-8, safe to open in a spreadsheet.

    An output that is a string is shown as that string, any other as its JSON text. Every cell is quoted, so that
    a spreadsheet set to another delimiter cuts none in two.
    """
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    yield buffer.getvalue().encode()
    for row in rows:
        buffer.seek(0)
        buffer.truncate()
        texts = (row.key, row.status, _output_text(row.output_json), row.error, row.custom_id)
        writer.writerow((*(cell(text) for text in texts), row.attempts))
        yield buffer.getvalue().encode()


def _output_text(output_json: str | None) -> str | None:
    if output_json is None or not output_json.lstrip().startswith('"'):
        return output_json
    return str(loads(output_json))


def cell(text: str | None) -> str:
    """The text as a cell of a table that a spreadsheet may open: shown as it is, and never a formula."""
    shown = visible(text or "")
    return f"'{shown}" if _FORMULA.match(shown) else shown


_LINES: dict[str, Callable[[Iterable[OutputRow]], Iterator[bytes]]] = {
    ".jsonl": lambda rows: map(jsonl_line, rows),
    ".csv": csv_lines,
}


def check_out_path(path: Path) -> None:
    """Whether outputs could be written there; asked before a run costs money. A file already there will be replaced.

    :raises InputError: another ending than .jsonl or .csv, or the folder is missing or cannot be written to.
    """
    if path.suffix.lower() not in _LINES:
        raise InputError(f"The output file {shown(path)} must end in .jsonl or .csv.")
    if path.is_dir():
        raise InputError(f"The output file {shown(path)} is a folder; name a file in it.")
    part = _part(path)
    try:
        # Made and taken away again: permissions alone do not tell of a disk that is read-only or full.
        part.open("xb").close()
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        _remove(part)


def write_outputs(rows: Iterable[OutputRow], path: Path) -> int:
    """Writes all rows and returns their count; the file appears, or is replaced, only once it is complete.

    :raises InputError: as `check_out_path`, or the disk is full.
    """
    check_out_path(path)
    count = 0

    def counted() -> Iterator[OutputRow]:
        nonlocal count
        for count, row in enumerate(rows, 1):  # noqa: B007 - the count is the result
            yield row

    with _replacing(path) as stream:
        stream.writelines(_LINES[path.suffix.lower()](counted()))
    return count


def rejected_path(out: Path | None, source: Path) -> Path:
    """Where set-aside records go: beside the output (`out.rejected.jsonl`), or beside the input if there is none."""
    beside = out or (source if source.name else source.resolve())
    stem = beside.name if out is None and beside.is_dir() else beside.stem
    return beside.with_name(f"{stem}.rejected.jsonl")


def set_aside(problems: Iterable[Problem], path: Path) -> int:
    """Writes the records that cannot be used, one JSON line each, and returns their count; no problem, no file.

    :raises InputError: the file cannot be written.
    """
    count = 0
    with setting_aside(path) as put:
        for problem in problems:
            put(problem)
            count += 1
    return count


@contextmanager
def setting_aside(path: Path) -> Iterator[Callable[[Problem], None]]:
    """Like `set_aside`, for problems met one by one: what it gives is called with each.

    The file appears when the block ends well, and only if there was a problem.
    """
    with ExitStack() as stack:
        stream: BinaryIO | None = None

        def put(problem: Problem) -> None:
            nonlocal stream
            if stream is None:
                stream = stack.enter_context(_replacing(path))
            stream.write(_rejected_line(problem))

        yield put


def _rejected_line(problem: Problem) -> bytes:
    # Bytes that are no UTF-8 become lone surrogates, from which Python's "surrogateescape" makes them again.
    record = problem.raw.decode("utf-8", "surrogateescape")
    line: dict[str, object] = {
        "where": problem.where,
        "fault": problem.fault,
        "remedy": problem.remedy,
        "record": record,
    }
    if len(problem.raw) >= RAW_BYTES:
        line["record_cut"] = True
    return dumps(line) + b"\n"


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the path's place, whole, when the block ends well; a link stays, its file is replaced."""
    part = _part(path)
    try:
        with part.open("xb", buffering=1 << 18) as stream:
            if path.exists():
                part.chmod(stat.S_IMODE(path.stat().st_mode))
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path.resolve())
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        _remove(part)


def _part(path: Path) -> Path:
    return path.resolve().with_name(f".batchdesk-{secrets.token_hex(8)}.part")


def _remove(part: Path) -> None:
    with suppress(OSError):
        part.unlink()


def _unwritable(path: Path, error: OSError) -> InputError:
    if not path.resolve().parent.is_dir():
        return InputError(f"The folder of {shown(path)} does not exist; make it, or name another file.")
    return InputError(f"{shown(path)} cannot be written: {error.strerror or error}; make room, or name another file.")
