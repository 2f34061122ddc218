"""What the API says in headers, read with care: any server may answer in its place."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite

LONGEST_WAIT = 86_400.0  # seconds; no answer makes us wait longer


def moment(header: str | None) -> datetime | None:
    """An HTTP date; one without a zone is in UTC."""
    try:
        found = parsedate_to_datetime(header or "")
    except (ValueError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def retry_after(header: str | None) -> float | None:
    """Seconds that a `retry-after` header asks for: a number, or an HTTP date."""
    try:
        seconds = float(header or "")
    except ValueError:
        until = moment(header)
        if until is None:
            return None
        seconds = (until - datetime.now(UTC)).total_seconds()
    return min(max(0.0, seconds), LONGEST_WAIT) if isfinite(seconds) else None
