"""Strays: batches of the API that no row knows. Another program's, another installation's, or one that was given up.
Whoever reads a list of the API's leaves here what it saw (`keep`); pages read the table, and never call the API.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import JSON, Connection, ForeignKey, Integer
from sqlalchemy.orm import Mapped, mapped_column

from webapp import db
from webapp.batches import leaving
from webapp.batches.accounts import find_account
from webapp.batches.books import note
from webapp.batches.desk import Desk
from webapp.batches.models import moment
from webapp.batches.steps import Lease, StepName, due
from webapp.db import Base
from webapp.errors import ApiError, Refused
from webapp.gateway import ApiBatch, Gateway

LOOK_EVERY = 3600.0  # seconds between looks, while batches of the account are polled
LOOK_AGAIN = 60.0  # seconds, when the API's list cannot be read
KEPT = timedelta(days=29)  # results are kept so long: what is older costs nothing more and holds nothing
MOST_PAGES = 10

# Of strays t: those that no batch of ours has, and that are not the POST just under way.
IS_STRAY = """
    NOT EXISTS (SELECT 1 FROM batches b WHERE b.api_id = t.api_id)
    AND NOT EXISTS (SELECT 1 FROM submissions s WHERE s.account_id = t.account_id AND s.total = t.total
                    AND s.outcome IS NULL AND t.created_at >= s.api_time)
"""


class Stray(Base):
    """A batch of the API that was seen in its list and that no row knew then."""

    __tablename__ = "strays"

    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"), primary_key=True, autoincrement=False)
    api_id: Mapped[str] = mapped_column(primary_key=True)
    total: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = moment()
    expires_at: Mapped[datetime] = moment()
    processing_status: Mapped[str]
    api_counts: Mapped[Any] = mapped_column(JSON)
    # One that was read in its results: it tells whose they are.
    custom_id: Mapped[str | None]
    first_seen_at: Mapped[datetime] = moment(now=True)
    last_seen_at: Mapped[datetime] = moment(now=True)


def listed(gateway: Gateway, since: datetime, most_pages: int | None = None) -> tuple[list[ApiBatch], bool]:
    """The batches of the API that were created since then, newest first, and whether these are all of them.

    A page without a batch after one that promised more says nothing: its cursor may have been deleted.
    """
    found: list[ApiBatch] = []
    for number, page in enumerate(gateway.pages(), 1):
        found += [batch for batch in page.batches if batch.created_at >= since]
        if any(batch.created_at < since for batch in page.batches):
            return found, True
        if page.complete:
            return found, bool(page.batches) or number == 1
        if number == most_pages:
            break
        leaving.look()
    return found, False


def keep(tx: Connection, account_id: int, seen: Sequence[ApiBatch], since: datetime | None) -> None:
    """Leave what a list has shown; ours are left out, and what has gone from the API goes from here.

    :param since: the list was complete from this time on; None: it was not.
    """
    ids = [batch.id for batch in seen]
    ours = {found for (found,) in db.rows(tx, "SELECT api_id FROM batches WHERE api_id = ANY(:ids)", ids=ids)}
    db.run(
        tx,
        "DELETE FROM strays WHERE account_id = :account "
        "AND (api_id = ANY(:ours) OR (created_at >= :since AND NOT api_id = ANY(:ids)))",
        account=account_id,
        ours=list(ours),
        since=since,
        ids=ids,
    )
    new = [
        {
            "api_id": batch.id,
            "total": batch.total,
            "created_at": batch.created_at.isoformat(),
            "expires_at": batch.expires_at.isoformat(),
            "processing_status": batch.processing_status,
            "api_counts": batch.counts,
        }
        for batch in sorted(seen, key=lambda one: one.id)
        if batch.id not in ours
    ]
    db.run(
        tx,
        """
        INSERT INTO strays (account_id, api_id, total, created_at, expires_at, processing_status, api_counts)
        SELECT :account, s.* FROM json_to_recordset(CAST(:new AS json)) AS s(api_id text, total int,
            created_at timestamptz, expires_at timestamptz, processing_status text, api_counts json)
        ON CONFLICT (account_id, api_id) DO UPDATE SET total = excluded.total, api_counts = excluded.api_counts,
            processing_status = excluded.processing_status, last_seen_at = now()
        """,
        account=account_id,
        new=json.dumps(new),
    )


def name(tx: Connection, account_id: int, api_id: str, custom_id: str | None) -> None:
    """Note an id that was read in a stray's results: it tells people whose it is."""
    db.run(
        tx,
        "UPDATE strays SET custom_id = :custom_id WHERE account_id = :account AND api_id = :api",
        custom_id=custom_id,
        account=account_id,
        api=api_id,
    )


def look_when_due(tx: Connection, account_id: int) -> None:
    """Make a look due if the last one was an hour ago. Polling calls it: accounts without open batches rest."""
    long_ago = "looked_at < now() - make_interval(secs => :every)"
    overdue = f"SELECT 1 FROM accounts WHERE id = :id AND {long_ago}"  # noqa: S608
    if db.scalar(tx, overdue, id=account_id, every=LOOK_EVERY):
        due(tx, StepName.LOOK, account_id)
        db.run(tx, "UPDATE accounts SET looked_at = now() WHERE id = :id", id=account_id)


def look_now(tx: Connection, *, actor: str) -> None:
    """Ask that every account's list is looked through now.

    :raises Refused: nothing was ever sent from here, so there is no account to look into.
    """
    accounts = db.rows(tx, "SELECT id FROM accounts ORDER BY id")
    if not accounts:
        raise Refused("Nothing has been sent from here yet: there is no account whose batches could be looked through.")
    for (account_id,) in accounts:
        due(tx, StepName.LOOK, account_id)
    note(tx, run_id=None, actor=actor, reason="A look for strays asked for.", kind="wish")


def look(desk: Desk, lease: Lease) -> float | None:
    """The step: read an account's list and keep its strays. Seconds until it is tried again, or None: it is read."""
    account_id = lease.target_id
    try:
        identity = desk.gateway.identify()
        with db.transaction() as tx:
            present = find_account(tx, desk.settings, identity)
        if present != account_id:
            return None  # the key of another account: its list says nothing of this one
        since = identity.api_time - KEPT
        seen, complete = listed(desk.gateway, since, MOST_PAGES)
    except ApiError as error:
        return max(error.retry_after or 0.0, LOOK_AGAIN)
    with db.transaction() as tx:
        lease.hold(tx)
        db.run(tx, "UPDATE accounts SET looked_at = now() WHERE id = :id", id=account_id)
        forgotten = "DELETE FROM strays WHERE account_id = :account AND created_at < :since"
        db.run(tx, forgotten, account=account_id, since=since)
        keep(tx, account_id, seen, since if complete else None)
    return None
