"""Keeps the prompt cache's books: what a row of a batch reads, writes, and pays in full.

The results use one `CacheBook` per pass over a batch, in the order in which its rows were processed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from .tokens import Measured, Prefix

#: How long a prefix lives after it was last written or read, by its marker.
TTL_SECONDS = {"5m": 300, "1h": 3600}


class CacheUse(NamedTuple):
    """Input tokens of one request by what is paid for them."""

    uncached: int
    read: int
    written_5m: int
    written_1h: int

    def as_usage(self) -> dict[str, Any]:
        """The input side of a Message's ``usage``."""
        return {
            "input_tokens": self.uncached,
            "cache_creation_input_tokens": self.written_5m + self.written_1h,
            "cache_read_input_tokens": self.read,
            "cache_creation": {
                "ephemeral_5m_input_tokens": self.written_5m,
                "ephemeral_1h_input_tokens": self.written_1h,
            },
        }


class CacheBook:
    """What the cache holds while one batch is processed. Times are seconds since the batch was created.

    :param warm: keys that were written by earlier batches, and the time until which each lives.
    :param cold_requests: so many requests with a prefix that is not there begin before the first of them has written
        it, and all write it.
    :param hit_rate: the part of the others that reads; those that do not are spread evenly.
    :param chance: in [0, 1), when the first of these comes.
    """

    def __init__(self, warm: Mapping[bytes, float], cold_requests: int, hit_rate: float, chance: float) -> None:
        self._cold_requests = max(1, cold_requests)
        self._miss_rate = 1 - hit_rate
        self._owed = chance  # misses
        self._lives_until = dict(warm)
        self._written = Counter(dict.fromkeys(warm, self._cold_requests))

    def use(self, measured: Measured, at: float) -> CacheUse:
        """Book one request; requests come in the order of their times."""
        if not measured.prefixes:
            return CacheUse(measured.tokens, 0, 0, 0)
        self._forget(measured.prefixes, at)
        read = self._longest_hit(measured.prefixes)
        if read and self._misses():
            read = 0
        for prefix in measured.prefixes:
            self._written[prefix.key] += 1
            # Reading it gives it its whole time anew, as writing does.
            until = at + TTL_SECONDS[prefix.ttl]
            self._lives_until[prefix.key] = max(until, self._lives_until.get(prefix.key, until))
        return _split(measured, read)

    def _forget(self, prefixes: tuple[Prefix, ...], at: float) -> None:
        """What nobody has used in its time is gone."""
        for prefix in prefixes:
            for key, _ in ((prefix.key, prefix.tokens), *prefix.earlier):
                if self._lives_until.get(key, at) < at:
                    del self._lives_until[key], self._written[key]

    def _misses(self) -> bool:
        """Whether the next request that could read does not."""
        self._owed += self._miss_rate
        missed = self._owed >= 1
        self._owed -= missed
        return missed

    def _longest_hit(self, prefixes: tuple[Prefix, ...]) -> int:
        for prefix in reversed(prefixes):
            for key, tokens in ((prefix.key, prefix.tokens), *prefix.earlier):
                if self._written[key] >= self._cold_requests:
                    return tokens
        return 0


def _split(measured: Measured, read: int) -> CacheUse:
    """What lies beyond the part read is written: up to the last 1h marker for an hour, the rest for 5 minutes."""
    end_1h = max((prefix.tokens for prefix in measured.prefixes if prefix.ttl == "1h"), default=0)
    end = measured.prefixes[-1].tokens
    written_1h = max(0, end_1h - read)
    written_5m = max(0, end - max(read, end_1h))
    return CacheUse(measured.tokens - end, read, written_5m, written_1h)
