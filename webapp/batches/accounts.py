"""Accounts: whose batches these are, how long the API asked that account to wait, and how much it has room for.
Submission looks an account up before each POST.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.orm import Mapped, mapped_column

from webapp import db
from webapp.batches.models import big_id, moment
from webapp.db import Base
from webapp.gateway import Identity
from webapp.settings import Settings

AHEAD_WAIT = 2.0  # seconds between looks at the one POST that goes ahead after a 429


class Account(Base):
    """One identity at the API. The key itself is never stored."""

    __tablename__ = "accounts"

    id: Mapped[int] = big_id()
    fingerprint: Mapped[str] = mapped_column(unique=True)
    base_url: Mapped[str]
    organization_id: Mapped[str | None]
    workspace_id: Mapped[str | None]
    sandbox: Mapped[bool]
    throttled_until: Mapped[datetime | None] = moment()
    # When its batches at the API were last looked through for strays.
    looked_at: Mapped[datetime] = moment(now=True)
    created_at: Mapped[datetime] = moment(now=True)


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


def relieve(tx: Connection, account_id: int) -> None:
    """Note that the API took a batch again: whoever was made to wait may send without looking at each other."""
    db.run(tx, "UPDATE accounts SET throttled_until = NULL WHERE id = :id AND throttled_until <= now()", id=account_id)


def throttled_for(tx: Connection, account_id: int) -> float:
    """Seconds that the account still has to wait; 0 when it may send.

    Once the time is over that the API asked for, one POST goes ahead, and the others wait to see what comes of it.
    The account stays locked until the transaction ends, so that not two go ahead.
    """
    account = db.row(
        tx,
        "SELECT throttled_until, extract(epoch FROM throttled_until - now()) AS left, EXISTS ("
        "SELECT 1 FROM submissions s WHERE s.account_id = a.id AND s.outcome IS NULL) AS sending "
        "FROM accounts a WHERE id = :id FOR UPDATE",
        id=account_id,
    )
    if account.throttled_until is None:
        return 0.0
    return max(float(account.left), AHEAD_WAIT if account.sending else 0.0)


def requests_at_the_api(tx: Connection, account_id: int) -> int:
    """How many requests of an account are in processing, or may be, as far as our rows know."""
    count: int = db.scalar(
        tx,
        # In these words, so that the index of open batches serves.
        "SELECT coalesce(sum(total), 0) FROM batches WHERE account_id = :id "
        "AND state NOT IN ('done', 'failed', 'discarded') AND state NOT IN ('planned', 'ingesting')",
        id=account_id,
    )
    return count
