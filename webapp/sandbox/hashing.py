"""Chance that is no chance: numbers and ids drawn from hashes, so that the same input always fares the same.

Every module of the sandbox that has to choose draws from here.
"""

from __future__ import annotations

import secrets
from hashlib import blake2b

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_SPAN = float(1 << 64)


def number(*parts: str | bytes) -> int:
    """A number of 64 bits made of the parts."""
    hasher = blake2b(digest_size=8)
    for part in parts:
        hasher.update(part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass"))
        hasher.update(b"\0")
    return int.from_bytes(hasher.digest(), "big")


def fraction(*parts: str | bytes) -> float:
    """A number in [0, 1) made of the parts."""
    return number(*parts) / _SPAN


def identifier(prefix: str, *parts: str | bytes) -> str:
    """An id such as the API gives, made of the parts; of chance when there are none."""
    seed = number(*parts, "id") << 64 | number(*parts, "di") if parts else secrets.randbits(128)
    letters = []
    for _ in range(22):
        seed, rest = divmod(seed, 58)
        letters.append(_BASE58[rest])
    return f"{prefix}01{''.join(letters)}"
