"""How often signing in has failed, and what is locked because of it. Signing in calls `charge` before it looks at a
password, and `forgive` when it was right; the users page asks `locked` and calls `unlock`.

Three counts, each under a keyed hash, so that names that do not exist leave nothing that could be read (people type
passwords into the wrong field) and are locked just as those that do:

- a name from one address: 10 in a row lock it for 15 minutes, then 30, then an hour each time;
- one address, whatever the names: 50;
- one name, wherever from: 100.

Whoever signed in from an address within 30 days is held there by the first count alone, so that nobody can lock a
person out from everywhere by guessing at the name, nor out of the office by guessing in it.
A try is counted before its password is looked at: a thousand tries at once are still but ten.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv6Address, ip_address

from flask import current_app
from sqlalchemy import CheckConstraint, Connection, Integer, func
from sqlalchemy.orm import Mapped, mapped_column

from webapp import db
from webapp.batches.models import moment
from webapp.db import Base
from webapp.errors import Refused

LIMITS = {"pair": 10, "name": 100, "address": 50}
MINUTES = 15  # of a lock; that of a name from one address doubles twice
KNOWN_DAYS = 30  # for which an address is known as one that the person signs in from
TIDIED = 100  # rows of no more use that one failure takes away
_LIMIT = f"CASE t.scope {' '.join(f'WHEN {scope!r} THEN {most}' for scope, most in LIMITS.items())} END"
_GROWN = "CASE WHEN t.scope = 'pair' THEN power(2, least(t.locks, 2))::int ELSE 1 END"
_LENGTH = f"make_interval(mins => {MINUTES} * {_GROWN})"
_LOCKED = f"(t.failures >= {_LIMIT} AND t.tried_at + {_LENGTH} > now())"
_FORGOTTEN = "t.tried_at < now() - interval '1 day'"
_KNOWN = f"coalesce(t.succeeded_at > now() - interval '{KNOWN_DAYS} days', false)"


class SignInTries(Base):
    """One count of failures in a row. `name_key` finds all those of one name."""

    __tablename__ = "sign_in_tries"
    __table_args__ = (CheckConstraint("scope IN ('pair', 'name', 'address')", name="scope"),)

    key: Mapped[str] = mapped_column(primary_key=True)
    scope: Mapped[str]
    name_key: Mapped[str | None] = mapped_column(index=True)
    failures: Mapped[int] = mapped_column(Integer)
    locks: Mapped[int] = mapped_column(Integer, server_default="0")
    tried_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
    succeeded_at: Mapped[datetime | None] = moment()


@dataclass(frozen=True, slots=True)
class Charged:
    """A try that was counted: under which keys, and which of them it has brought to their limit."""

    keys: dict[str, str]
    full: list[str]


def charge(name: str, address: str | None) -> Charged:
    """Count a try at a name as failed before its password is looked at.

    :raises Refused: nothing is looked at now, whether there is such a name or not; says for how long.
    """
    keys = _keys(name, address)
    full = []
    with db.transaction() as tx:
        for scope, key in keys.items():
            counted = db.row(
                tx,
                f"""
                INSERT INTO sign_in_tries AS t (key, scope, name_key, failures) VALUES (:key, :scope, :name_key, 1)
                ON CONFLICT (key) DO UPDATE SET
                    failures = CASE WHEN t.failures < {_LIMIT} AND NOT {_FORGOTTEN} THEN t.failures + 1 ELSE 1 END,
                    locks = CASE WHEN {_FORGOTTEN} THEN 0 WHEN t.failures < {_LIMIT} THEN t.locks ELSE t.locks + 1 END,
                    tried_at = now()
                WHERE NOT {_LOCKED} RETURNING failures, {_KNOWN} AS known
                """,  # noqa: S608 - constants
                key=key,
                scope=scope,
                name_key=None if scope == "address" else _hash("name", name),
            )
            if counted is None:
                raise Refused(_words(tx, key))
            if counted.failures >= LIMITS[scope]:
                full.append(scope)
            if counted.known:
                return Charged({scope: key}, full)
    return Charged(keys, full)


def forgive(tx: Connection, charged: Charged) -> None:
    """The password was right: the name starts anew from its address, the other counts lose the try."""
    db.run(
        tx,
        "UPDATE sign_in_tries SET failures = CASE scope WHEN 'pair' THEN 0 ELSE greatest(failures - 1, 0) END, "
        "locks = CASE scope WHEN 'pair' THEN 0 ELSE locks END, "
        "succeeded_at = CASE scope WHEN 'pair' THEN now() END WHERE key = ANY(:keys)",
        keys=sorted(charged.keys.values()),
    )


def tidy(tx: Connection) -> None:
    """Take away some counts that mean nothing any more."""
    db.run(
        tx,
        f"DELETE FROM sign_in_tries WHERE key IN (SELECT key FROM sign_in_tries t WHERE {_FORGOTTEN} "  # noqa: S608 - constants
        f"AND NOT {_KNOWN} ORDER BY tried_at LIMIT {TIDIED} FOR UPDATE SKIP LOCKED)",
    )


def locked(tx: Connection, names: Collection[str]) -> dict[str, int]:
    """Which of these names are locked somewhere, and for how many minutes yet."""
    keys = {_hash("name", name): name for name in names}
    found = db.rows(
        tx,
        f"SELECT t.name_key, max({_minutes()}) AS minutes FROM sign_in_tries t "  # noqa: S608 - constants
        f"WHERE t.name_key = ANY(:keys) AND {_LOCKED} GROUP BY t.name_key",
        keys=list(keys),
    )
    return {keys[line.name_key]: line.minutes for line in found}


def unlock(tx: Connection, name: str) -> bool:
    """Let a name sign in again from everywhere; False when nothing was locked."""
    was = bool(locked(tx, [name]))
    db.run(
        tx,
        "UPDATE sign_in_tries SET failures = 0, locks = 0 WHERE name_key = :key",
        key=_hash("name", name),
    )
    return was


def _minutes() -> str:
    return f"ceil(extract(epoch FROM t.tried_at + {_LENGTH} - now()) / 60)::int"


def _words(tx: Connection, key: str) -> str:
    minutes = db.scalar(tx, f"SELECT {_minutes()} FROM sign_in_tries t WHERE key = :key", key=key)  # noqa: S608 - constants
    minutes = max(minutes or 1, 1)
    return f"Too many wrong tries. Wait {minutes} {'minute' if minutes == 1 else 'minutes'}, then try again."


def _keys(name: str, address: str | None) -> dict[str, str]:
    """The keys of the three counts, always in this order: two tries at once never wait for each other in a circle."""
    place = _place(address)
    return {
        "pair": _hash("pair", f"{place} {name}"),
        "name": _hash("name", name),
        "address": _hash("address", place),
    }


def _place(address: str | None) -> str:
    """An address as one place: whoever has an IPv6 address has all of its /64."""
    try:
        read = ip_address((address or "").partition("%")[0])
    except ValueError:
        return address or "nowhere"
    if isinstance(read, IPv6Address):
        return str(read.ipv4_mapped or read.exploded[:19])
    return str(read)


def _hash(scope: str, words: str) -> str:
    key = str(current_app.secret_key).encode()
    return hmac.new(key, f"sign-in {scope} {words}".encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
