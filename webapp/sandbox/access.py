"""Who calls: key, workspace and API version of a request, and how many calls a workspace may make.

The app asks on every call. Keys are not secret here: any key will do, except one that begins with
``invalid``. All keys are of one workspace, except those of the form ``ws:NAME:anything``, which are of the
workspace NAME.
"""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import NamedTuple

from werkzeug.wrappers import Request

from .content_checks import NEW_VERSION
from .hashing import identifier
from .replies import ApiError, invalid

VERSIONS = ("2023-06-01", NEW_VERSION)
ORGANIZATION_ID = "5a4d0b0c-0000-4000-8000-ba7c4de5c000"
_NO_LIMIT_SHOWN = 4000


class Caller(NamedTuple):
    """Who calls, and how the answer should look."""

    workspace: str
    version: str
    betas: tuple[str, ...]

    @property
    def workspace_id(self) -> str:
        return identifier("wrkspc_", self.workspace)


def identify(request: Request) -> Caller:
    """The caller of a request; control endpoints ask for no API version.

    :raises ApiError: the key is missing or no good, or the version is.
    """
    workspace = _workspace(_key(request))
    version = request.headers.get("anthropic-version", "")
    if request.path.startswith("/sandbox/"):
        return Caller(workspace, version, ())
    if not version:
        raise invalid("anthropic-version: header is required")
    if version not in VERSIONS:
        raise invalid(f'anthropic-version: "{version}" is not a valid version')
    betas = request.headers.get("anthropic-beta", "")
    return Caller(workspace, version, tuple(beta.strip() for beta in betas.split(",") if beta.strip()))


def _key(request: Request) -> str:
    key = request.headers.get("x-api-key", "").strip()
    if not key:
        # Not request.authorization: a key is opaque, and this header may be anything.
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        key = token.strip() if scheme.lower() == "bearer" else ""
    if not key:
        raise ApiError(401, "authentication_error", "x-api-key header is required")
    if key.startswith("invalid"):
        raise ApiError(401, "authentication_error", "API key is invalid.")
    return key


def _workspace(key: str) -> str:
    parts = key.split(":", 2)
    return parts[1] if len(parts) == 3 and parts[0] == "ws" and parts[1] else "default"


class RateLimiter:
    """A bucket of calls per workspace that fills up again within a minute."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: dict[str, tuple[float, datetime]] = {}

    def take(self, bucket: str, per_minute: int, now: datetime) -> dict[str, str]:
        """Count one call of a workspace, or of one kind in it, and give the rate limit headers of its answer.

        :raises ApiError: 429, there were too many.
        """
        if not per_minute:
            return _headers(_NO_LIMIT_SHOWN, _NO_LIMIT_SHOWN, now)
        with self._lock:
            left, since = self._left.get(bucket, (float(per_minute), now))
            left = min(per_minute, left + (now - since).total_seconds() * per_minute / 60)
            allowed = left >= 1
            self._left[bucket] = (left - 1 if allowed else left, now)
        headers = _headers(per_minute, int(left) - 1 if allowed else 0, now)
        if allowed:
            return headers
        message = f"This request would exceed your organization's rate limit of {per_minute} requests per minute."
        wait = -(-int((1 - left) * 60_000 / per_minute) // 1000)
        raise ApiError(429, "rate_limit_error", message, retry_after=max(1, wait), headers=headers)


def _headers(limit: int, remaining: int, now: datetime) -> dict[str, str]:
    full_again = now + timedelta(seconds=(limit - remaining) * 60 / limit)
    return {
        "anthropic-ratelimit-requests-limit": str(limit),
        "anthropic-ratelimit-requests-remaining": str(remaining),
        "anthropic-ratelimit-requests-reset": full_again.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
