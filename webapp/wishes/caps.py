"""What people ask of caps: set, change, take away. Like `webapp.wishes`, each is one short transaction and a nudge."""

from __future__ import annotations

from decimal import Decimal

from webapp import db
from webapp.jobs import nudge
from webapp.money import caps


def ask_cap(scope: caps.Scope, target: str, limit_usd: Decimal, *, actor: str, refuse_unpriced: bool = True) -> int:
    """Set or change a cap; see `caps.put`. What waits for room under it looks again."""
    with db.transaction() as tx:
        cap_id = caps.put(tx, scope, target, limit_usd, actor=actor, refuse_unpriced=refuse_unpriced)
    nudge()
    return cap_id


def ask_cap_away(cap_id: int, *, actor: str) -> str:
    """Take a cap away; see `caps.remove`."""
    with db.transaction() as tx:
        return caps.remove(tx, cap_id, actor=actor)
