"""The sandbox's own time: the machine's, moved forward on request.

Everything in the sandbox that asks what time it is asks here, so that a day or a month can pass in a test.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from .store import Store


class Clock:
    """Time that can be advanced; how far is kept in the store, so that a restart does not turn it back."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ahead = timedelta(seconds=float(store.read_meta("clock_ahead") or 0))

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def advance(self, seconds: float) -> None:
        """Move time forward.

        :raises ValueError: the seconds are negative, or more than a hundred years.
        """
        if not 0 <= seconds <= 100 * 365 * 86_400:
            raise ValueError("time can be advanced by 0 seconds up to 100 years")
        with self._store.lock:
            self._ahead += timedelta(seconds=seconds)
            self._store.write_meta("clock_ahead", str(self._ahead.total_seconds()))


def timestamp(moment: datetime | None) -> str | None:
    """The moment as the API writes it."""
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
