"""Accounts: whose batches these are, and how long the API asked that account to wait.
Submission looks an account up before each POST.
"""

from __future__ import annotations

import hashlib

from sqlalchemy import Connection

from webapp import db
from webapp.gateway import Identity
from webapp.settings import Settings


def find_account(tx: Connection, settings: Settings, identity: Identity) -> int:
    """The id of the account that an identity belongs to; made when it is new.

    Without organization and workspace in the answer's headers, a hash of the key stands for them.
    """
    who = f"{identity.organization_id}/{identity.workspace_id}"
    if identity.organization_id is None and identity.workspace_id is None:
        key = settings.anthropic_api_key.get_secret_value() if settings.anthropic_api_key else ""
        who = "key:" + hashlib.sha256(key.encode()).hexdigest()[:32]
    found: int = db.scalar(
        tx,
        """
        INSERT INTO accounts (fingerprint, base_url, organization_id, workspace_id, sandbox)
        VALUES (:fingerprint, :base_url, :organization_id, :workspace_id, :sandbox)
        ON CONFLICT (fingerprint) DO UPDATE SET base_url = excluded.base_url RETURNING id
        """,
        fingerprint=f"{identity.base_url} {who}",
        base_url=identity.base_url,
        organization_id=identity.organization_id,
        workspace_id=identity.workspace_id,
        sandbox=settings.sandbox,
    )
    return found


def throttle(tx: Connection, account_id: int, seconds: float) -> None:
    """Send nothing more for this account for some seconds: the API said so."""
    db.run(
        tx,
        "UPDATE accounts SET throttled_until = GREATEST(throttled_until, now() + make_interval(secs => :seconds)) "
        "WHERE id = :id",
        seconds=seconds,
        id=account_id,
    )


def throttled_for(tx: Connection, account_id: int) -> float:
    """Seconds that the account still has to wait; 0 when it may send."""
    left = db.scalar(
        tx, "SELECT extract(epoch FROM throttled_until - now()) FROM accounts WHERE id = :id", id=account_id
    )
    return max(0.0, float(left or 0))
