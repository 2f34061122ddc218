"""Chance that is no chance: numbers and ids drawn from hashes, so that the same input always fares the same.

Every module of the sandbox that has to choose draws from here.
"""

from __future__ import annotations

import secrets
from hashlib import blake2b

_BASE58 = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
#: A letter for each byte.
_LETTERS = bytes(_BASE58[byte % 58] for byte in range(256))
_SPAN = float(1 << 64)


def number(*parts: str) -> int:
    """A number of 64 bits made of the parts."""
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


def fraction(*parts: str) -> float:
    """A number in [0, 1) made of the parts."""
    return number(*parts) / _SPAN


def identifier(prefix: str, *parts: str) -> str:
    """An id such as the API gives, made of the parts; of chance when there are none."""
    if not parts:
        return f"{prefix}01{secrets.token_bytes(22).translate(_LETTERS).decode()}"
    text = "\0".join(parts)
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=22).digest()
    return f"{prefix}01{digest.translate(_LETTERS).decode()}"
