"""Why a record cannot be used, in words for its owner, and the faults of encoding that every reader shares.
The readers of records, JSON text and images make them; nothing here reads a file.
"""

from __future__ import annotations

import codecs
from typing import NamedTuple


class Fault(NamedTuple):
    """What is wrong and what to do about it: parts of a sentence, without a full stop."""

    fault: str
    remedy: str


SAVE_AS_UTF8 = "save it as UTF-8, for instance with `iconv -f WINDOWS-1252 -t UTF-8` if that is what it is"

# UTF-32's little-endian mark starts with UTF-16's, so it is asked for first.
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_ARCHIVES = (
    (b"\x1f\x8b", "compressed with gzip", "unpack it with `gunzip`"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it with `unzstd`"),
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook", "unpack it, or save the sheet as CSV UTF-8"),
)


def foreign_content(head: bytes) -> Fault | None:
    """A file that by its first four bytes cannot be UTF-8 text, or None; a byte order mark names its encoding."""
    for start, fault, remedy in _ARCHIVES:
        if head.startswith(start):
            return Fault(f"it is {fault}, not text", remedy)
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return Fault(f"it is encoded in {encoding}, as its byte order mark says", _save_from(encoding))
    # ASCII characters in UTF-16 without a mark have a NUL in every second byte.
    if len(head) == 4 and head[0::2] == b"\0\0" and all(head[1::2]):
        return Fault("it is encoded in UTF-16, big-endian, without a byte order mark", _save_from("UTF-16BE"))
    if len(head) == 4 and head[1::2] == b"\0\0" and all(head[0::2]):
        return Fault("it is encoded in UTF-16, little-endian, without a byte order mark", _save_from("UTF-16LE"))
    return None


def _save_from(encoding: str) -> str:
    return f"save it as UTF-8, for instance with `iconv -f {encoding} -t UTF-8`"


def not_utf8(error: UnicodeDecodeError, offset: int = 0) -> Fault:
    """The fault of a text that failed to decode; `offset` is where the text starts in its file, in bytes."""
    byte = error.object[error.start]
    place = f"byte {offset + error.start:,} of the file, counted from 0"
    return Fault(f"it is not UTF-8: 0x{byte:02X} at {place}", SAVE_AS_UTF8)
