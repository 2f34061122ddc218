"""Limits on what may be spent: of one run, and per month (UTC) of an account, a task or an owner. People set them.
Submission asks `bar` before each POST, in the transaction that intends it; pages and the command line show `levels`.

A cap counts what is billed and the most that everything under way is expected to cost. Whoever is about to send locks
the caps that it is under until its intent is committed, so that two workers count each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, Connection, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from webapp import db
from webapp.batches.books import note
from webapp.batches.models import big_id, moment, one_of
from webapp.db import Base
from webapp.errors import InputError, NotFound
from webapp.money import exposure
from webapp.money.exposure import Spent, usd

TARGET = "cap"  # of events
ACTOR = "cap"
MOST = Decimal(10**12)
LONGEST = 200


class Scope(StrEnum):
    """What a cap is of."""

    RUN = "run"  # all attempts of one run
    ACCOUNT = "account"  # a month of an account at the API
    TASK = "task"  # a month of a task
    OWNER = "owner"  # a month of all runs that somebody started


class Cap(Base):
    """The most that may be spent on something, in USD."""

    __tablename__ = "caps"
    __table_args__ = (
        UniqueConstraint("scope", "target"),
        one_of("scope", Scope),
        CheckConstraint("limit_usd >= 0", name="limit_usd"),
    )

    id: Mapped[int] = big_id()
    scope: Mapped[str]
    target: Mapped[str]  # the id of a run or account, the name of a task or owner
    limit_usd: Mapped[Decimal]
    # Nothing is sent under it whose cost nobody can tell.
    refuse_unpriced: Mapped[bool] = mapped_column(server_default="true")
    changed_by: Mapped[str]
    changed_at: Mapped[datetime] = moment(now=True)


@dataclass(frozen=True, slots=True)
class Level:
    """A cap, and how much of it is used."""

    id: int
    scope: Scope
    target: str
    limit_usd: Decimal
    refuse_unpriced: bool
    changed_by: str
    changed_at: datetime
    spent: Spent

    @property
    def left_usd(self) -> Decimal:
        """What may still be sent; never less than nothing."""
        return max(Decimal(), self.limit_usd - self.spent.total_usd)

    @property
    def named(self) -> str:
        """Which cap it is, within a sentence."""
        return words(self.scope, self.target)


def words(scope: str, target: str) -> str:
    """A cap within a sentence."""
    if scope == Scope.RUN:
        return f"the cap of run {target}"
    return f"the monthly cap of {scope} {target}"


def _begin(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


@dataclass(frozen=True, slots=True)
class Bar:
    """Why a batch may not be sent now.

    :param waits: it may fit once what is under way is billed; else a person has to do something.
    """

    words: str
    waits: bool


def bar(tx: Connection, batch: Any, account_id: int) -> Bar | None:
    """What stands against sending a batch; None: no cap does. Its caps stay locked until the transaction is over.

    :param batch: a row with `run_id`, `total` and `body_bytes`.
    """
    held = _held(tx, batch.run_id, account_id)
    if not held:
        return None
    needs = exposure.most_of_batch(tx, batch)
    sandbox = bool(db.scalar(tx, "SELECT sandbox FROM accounts WHERE id = :id", id=account_id))
    found = [one for cap in held if (one := _against(tx, cap, needs, sandbox=sandbox)) is not None]
    return next((one for one in found if not one.waits), found[0] if found else None)


def _against(tx: Connection, cap: Any, needs: Decimal | None, *, sandbox: bool) -> Bar | None:
    """What one cap says to a batch that needs so much at most."""
    who = _begin(words(cap.scope, cap.target))
    if needs is None:
        if not cap.refuse_unpriced:
            return None
        return Bar(
            f"{who}, {usd(cap.limit_usd)}, takes nothing whose cost is unknown, and nobody knows what this run costs: "
            "its model has no known price. Give it one, or let the cap take unpriced models; then resume.",
            waits=False,
        )
    spent = exposure.of(tx, cap.scope, cap.target, sandbox=sandbox)
    if spent.total_usd + needs <= cap.limit_usd:
        return None
    told = f"{who} is {usd(cap.limit_usd)}: {spent.told()}, and the next batch may cost up to {usd(needs)}."
    if spent.flying_usd and spent.billed_usd + needs <= cap.limit_usd:
        return Bar(f"It waits for what is under way to be billed. {told}", waits=True)
    return Bar(f"{told} Nothing more is sent. Raise the cap, then resume.", waits=False)


def _held(tx: Connection, run_id: int, account_id: int) -> list[Any]:
    """The caps that a run is under, locked."""
    return list(
        db.rows(
            tx,
            "SELECT c.id, c.scope, c.target, c.limit_usd, c.refuse_unpriced FROM caps c JOIN runs r ON r.id = :run "
            "WHERE (c.scope, c.target) IN (('run', CAST(r.id AS text)), ('account', CAST(:account AS text)), "
            "('task', r.task), ('owner', r.owner)) ORDER BY c.id FOR UPDATE OF c",
            run=run_id,
            account=str(account_id),
        )
    )


def levels(tx: Connection, *, sandbox: bool) -> list[Level]:
    """All monthly caps with what is used of them, by what they are of.

    :param sandbox: whether the made-up money of sandbox accounts is counted, and not real money.
    """
    found = db.rows(
        tx,
        f"SELECT {_COLUMNS} FROM caps WHERE scope <> 'run' ORDER BY scope, target LIMIT :most",  # noqa: S608 - a constant
        most=MOST_SHOWN,
    )
    return [_level(tx, cap, sandbox=sandbox) for cap in found]


_COLUMNS = "id, scope, target, limit_usd, refuse_unpriced, changed_by, changed_at"
MOST_SHOWN = 200


def level_of_run(tx: Connection, run_id: int) -> Level | None:
    """The cap of a run with what is used of it."""
    cap = db.row(
        tx,
        f"SELECT {_COLUMNS} FROM caps WHERE scope = 'run' AND target = :id",  # noqa: S608 - a constant
        id=str(run_id),
    )
    return None if cap is None else _level(tx, cap, sandbox=False)


def bars(tx: Connection, run_id: int) -> str | None:
    """What kind of cap a paused run is paused by: `run`, or `month`; None: none."""
    by = db.scalar(
        tx,
        "SELECT actor FROM events WHERE run_id = :id AND kind = 'move' AND to_state = 'paused' AND batch_id IS NULL "
        "ORDER BY id DESC LIMIT 1",
        id=run_id,
    )
    if by != ACTOR:
        return None
    reason = str(db.scalar(tx, "SELECT reason FROM runs WHERE id = :id", id=run_id) or "")
    return "run" if reason.startswith(_begin(words(Scope.RUN, str(run_id)))) else "month"


def _level(tx: Connection, cap: Any, *, sandbox: bool) -> Level:
    return Level(
        cap.id,
        Scope(cap.scope),
        cap.target,
        cap.limit_usd,
        cap.refuse_unpriced,
        cap.changed_by,
        cap.changed_at,
        exposure.of(tx, cap.scope, cap.target, sandbox=sandbox),
    )


def warnings(
    tx: Connection, *, task: str, owner: str, high_usd: Decimal | None, limit_usd: Decimal | None, sandbox: bool
) -> list[str]:
    """What caps will say to a run that is about to be started, in sentences.

    :param high_usd: the most that it is expected to cost; None: unknown.
    :param limit_usd: the cap that it would have itself.
    """
    account = db.scalar(tx, "SELECT CAST(max(id) AS text) FROM accounts WHERE sandbox = :sandbox", sandbox=sandbox)
    found = db.rows(
        tx,
        f"SELECT {_COLUMNS} FROM caps WHERE (scope, target) IN (('task', :task), ('owner', :owner), "  # noqa: S608 - a constant
        "('account', CAST(:account AS text))) ORDER BY id",
        task=task,
        owner=owner,
        account=account,
    )
    told = []
    if limit_usd is not None and high_usd is None:
        told.append("Nobody knows what this costs: its cap will stop it before the first batch.")
    elif limit_usd is not None and high_usd is not None and high_usd > limit_usd:
        told.append(f"It may cost {usd(high_usd)}, more than its cap of {usd(limit_usd)}: it would stop on the way.")
    for level in (_level(tx, cap, sandbox=sandbox) for cap in found):
        if high_usd is None:
            if level.refuse_unpriced:
                told.append(f"Nobody knows what this costs: {level.named} will stop it before the first batch.")
        elif high_usd > level.left_usd:
            told.append(
                f"It may cost {usd(high_usd)}, and {level.named}, {usd(level.limit_usd)}, has "
                f"{usd(level.left_usd)} left ({level.spent.told()}): it would stop on the way."
            )
    return told


# -- what people do ----------------------------------------------------------------------------------------------


def put(
    tx: Connection, scope: Scope, target: str, limit_usd: Decimal, *, actor: str, refuse_unpriced: bool = True
) -> int:
    """Set or change a cap; its id. May be repeated.

    :raises InputError: there is no such amount, or nothing of that name.
    """
    _check(tx, scope, target, limit_usd)
    cap_id: int = db.scalar(
        tx,
        "INSERT INTO caps (scope, target, limit_usd, refuse_unpriced, changed_by) "
        "VALUES (:scope, :target, :limit, :refuse, :actor) ON CONFLICT (scope, target) DO UPDATE "
        "SET limit_usd = excluded.limit_usd, refuse_unpriced = excluded.refuse_unpriced, "
        "changed_by = excluded.changed_by, changed_at = now() RETURNING id",
        scope=scope.value,
        target=target,
        limit=limit_usd,
        refuse=refuse_unpriced,
        actor=actor,
    )
    unpriced = "nothing unpriced is sent" if refuse_unpriced else "unpriced models may be sent"
    _tell(tx, scope, target, f"{_begin(words(scope, target))} set to {usd(limit_usd)}; {unpriced}.", actor)
    return cap_id


def remove(tx: Connection, cap_id: int, *, actor: str) -> str:
    """Take a cap away; which it was, within a sentence.

    :raises NotFound: there is none.
    """
    gone = db.row(tx, "DELETE FROM caps WHERE id = :id RETURNING scope, target, limit_usd", id=cap_id)
    if gone is None:
        raise NotFound(f"There is no cap {cap_id}.")
    named = words(gone.scope, gone.target)
    _tell(tx, Scope(gone.scope), gone.target, f"{_begin(named)}, {usd(gone.limit_usd)}, taken away.", actor)
    return named


def _check(tx: Connection, scope: Scope, target: str, limit_usd: Decimal) -> None:
    if not limit_usd.is_finite() or not 0 <= limit_usd < MOST:
        raise InputError("A cap is an amount in US dollars, 0 or more: 25, or 0.50.")
    if not target or len(target) > LONGEST or not target.isprintable():
        raise InputError(f"Name the {scope} that the cap is of, in 1 to {LONGEST} characters.")
    table = {Scope.RUN: "runs", Scope.ACCOUNT: "accounts"}.get(scope)
    if table and not (
        target.isascii()
        and target.isdigit()
        and len(target) <= 18
        and db.scalar(tx, f"SELECT 1 FROM {table} WHERE id = :id", id=int(target))  # noqa: S608 - one of two
    ):
        raise InputError(f"There is no {scope} {target}.")


def amount(text: str) -> Decimal:
    """An amount of US dollars as people write it.

    :raises InputError: it is none.
    """
    try:
        found = Decimal(text.strip().removeprefix("$").replace(",", ""))
    except ArithmeticError:
        found = Decimal("NaN")
    if not found.is_finite() or not 0 <= found < MOST:
        raise InputError("A cap is an amount in US dollars, 0 or more: 25, or 0.50.")
    return found


def _tell(tx: Connection, scope: Scope, target: str, reason: str, actor: str) -> None:
    run_id = int(target) if scope == Scope.RUN else None
    note(tx, run_id=run_id, target=(TARGET, f"{scope} {target}"), actor=actor, reason=reason, kind="wish")
