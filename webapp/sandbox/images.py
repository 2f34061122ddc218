"""Reads type and size off an image's first bytes, without decoding it.

Checks, token counts and answers use it. A small parser of our own: no library is loaded, no pixel touched.
"""

from __future__ import annotations

import base64
import binascii
import struct
from typing import Any, NamedTuple

#: Base64 characters that are decoded at first; a JPEG with much metadata needs more. Divisible by 4.
_FIRST_LOOK = 4096
_SECOND_LOOK = 1 << 20

_JPEG_SIZES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})


class Picture(NamedTuple):
    """What an image says of itself; width and height in pixels."""

    media_type: str
    width: int
    height: int


def read_source(source: Any) -> Picture | None:
    """The picture of a base64 image source, or None when it cannot be read."""
    data = source.get("data") if isinstance(source, dict) else None
    if not isinstance(data, str):
        return None
    for look in (_FIRST_LOOK, _SECOND_LOOK):
        try:
            picture = read_header(base64.b64decode(data[:look], validate=True))
        except (binascii.Error, ValueError):
            return None
        if picture is not None or len(data) <= look:
            return picture
    return None


def read_header(head: bytes) -> Picture | None:
    """The picture that begins with these bytes, or None when they are no image or too few."""
    try:
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            return Picture("image/png", *struct.unpack_from(">II", head, 16))
        if head.startswith((b"GIF87a", b"GIF89a")):
            return Picture("image/gif", *struct.unpack_from("<HH", head, 6))
        if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
            return _read_webp(head)
        if head.startswith(b"\xff\xd8\xff"):
            return _read_jpeg(head)
    except (struct.error, IndexError):
        return None
    return None


def _read_webp(head: bytes) -> Picture | None:
    kind = head[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", head, 26)
        return Picture("image/webp", width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", head, 21)
        return Picture("image/webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8X":
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
        return Picture("image/webp", width, height)
    return None


def _read_jpeg(head: bytes) -> Picture | None:
    at = 2
    while at + 9 < len(head):
        if head[at] != 0xFF:
            return None
        marker = head[at + 1]
        if marker in _JPEG_SIZES:
            height, width = struct.unpack_from(">HH", head, at + 5)
            return Picture("image/jpeg", width, height)
        if marker == 0xFF:
            at += 1
        else:
            at += 2 + int(struct.unpack_from(">H", head, at + 2)[0])
    return None
