"""The bytes of a request: how its parts are stored, measured and put together while sending.
Planning stores with `encode` and measures; submission joins the stored parts; nothing else makes a request line.

A request line is `{"custom_id":"…","params":{SHARED,OWN}}`. Images stand in the own part as a mark that only this
run can have written (it holds the run's token), and become base64 while the line is sent.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from webapp.hooks import Image
from webapp.records.jsontext import plain

HEAD = b'{"requests":['
TAIL = b"]}"
MAX_REQUEST_BYTES = 32_000_000  # the API's limit for one Messages request; whether MB or MiB is not told
MAX_ID = 64  # the API's limit for a custom_id
_SURROGATE = re.compile("[\ud800-\udfff]")
_LINE = len(b'{"custom_id":"","params":}')


def custom_id(subject_id: int, token: str, attempt: int) -> str:
    """The id that finds the row again: subject, the run's random token, attempt. At most 45 characters."""
    return f"{subject_id}-{token}-{attempt}"


def encode(params: Mapping[str, Any], token: str) -> str:
    """JSON text of one part of a request, compact, with images as marks.

    :raises TypeError, ValueError: something in it is no JSON.
    """

    def mark(value: Any) -> Any:
        if isinstance(value, Image):
            return f"blob:{token}:{value.sha256}"
        return plain(value)

    try:
        return orjson.dumps(dict(params), default=mark, option=orjson.OPT_PASSTHROUGH_DATACLASS).decode()
    except orjson.JSONEncodeError:
        # What orjson refuses and JSON can hold: integers beyond 64 bits.
        text = json.dumps(dict(params), default=mark, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    if _SURROGATE.search(text):
        raise ValueError(
            "The text holds half of a surrogate pair, which is no character: the API refuses a whole batch for one. "
            "Mend the record's encoding."
        )
    return text


def mark_pattern(token: str) -> re.Pattern[bytes]:
    """Matches the marks of one run's images in an encoded own part; group 1 is the sha256 in hex."""
    return re.compile(mark_start(token) + rb"([0-9a-f]{64})")


def sent_bytes(own: bytes, marks: re.Pattern[bytes], size_of: Callable[[str], int]) -> int:
    """Length of an own part once its images are base64; `size_of` gives an image's bytes by its sha256."""
    length = len(own)
    if b"blob:" in own:
        for found in marks.finditer(own):
            length += 4 * ((size_of(found[1].decode()) + 2) // 3) - len(found[0])
    return length


def params_bytes(shared_bytes: int, own_bytes: int) -> int:
    """Length of the joined params: two objects become one."""
    return shared_bytes + own_bytes - 1


def line_bytes(id_length: int, shared_bytes: int, own_bytes: int) -> int:
    """Length of one request line, without the comma that separates it from the next."""
    return _LINE + id_length + params_bytes(shared_bytes, own_bytes)


def frame(shared: bytes) -> tuple[bytes, bytes, bytes]:
    """What stands before the `custom_id` of a line, between it and its own part (without the brace), and after that."""
    return b'{"custom_id":"', b'","params":' + shared[:-1] + b",", b"}"


def join_line(identifier: bytes, shared: bytes, own: bytes) -> bytes:
    """One request line from its stored parts."""
    before, between, after = frame(shared)
    return before + identifier + between + own[1:] + after


def mark_start(token: str) -> bytes:
    """What each mark of one run's images begins with; cheaper to look for than `mark_pattern`."""
    return b"blob:" + token.encode() + b":"


def with_images(own: bytes, marks: re.Pattern[bytes], content_of: Callable[[str], bytes]) -> bytes:
    """An own part with its marks replaced by base64; `content_of` reads an image by its sha256."""
    if b"blob:" not in own:
        return own
    return marks.sub(lambda found: b64encode(content_of(found[1].decode())), own)


def room_for_one(max_body: int) -> int:
    """The most bytes of params that a body of `max_body` bytes can hold for a single request."""
    return max_body - len(HEAD) - len(TAIL) - _LINE - MAX_ID
