"""Pilots: the first subjects of a run go ahead, people see what became of them and what they cost, and release the rest
or stop. That the rest waits is said in `webapp.batches.vanguard`; whatever ends something of a run asks `over`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.errors import InputError
from webapp.money.exposure import usd

ACTOR = "pilot"
SHOWN = 5  # subjects
MOST = 10_000  # subjects: a pilot is what people look at
SURE = Decimal("2.5")  # standard errors on either side that the mean cost of the pilot's answers is believed to
MARGIN = Decimal("0.1")  # ... and what else may differ between the first subjects and the rest, as a part of it
# Of batches b: of the pilot, or of the request that writes the cache for it.
_AHEAD = "b.role IS NOT NULL"
# ... or of the rest, which waits until it is released.
_WAITING = "b.role IS NULL AND b.resubmission_id IS NULL AND b.state = 'planned'"


@dataclass(frozen=True, slots=True)
class Pilot:
    """Where a run's pilot stands.

    :param subjects: that were asked for; `rest` have not been sent yet.
    :param through: its answers are there and processed; the run waits for a person, unless it is `released`.
    :param ok: subjects with an output, `invalid` with an answer of no use, `failed` with none, `open` still under way.
    :param cost_usd: of all its answers; None: unpriced. `answers` were billed.
    :param low_usd: what the rest is likely to cost by that, at the least, and `high_usd`: at the most. None: unknown.
    """

    subjects: int
    rest: int
    through: bool
    released: bool
    ok: int
    invalid: int
    failed: int
    open: int
    answers: int
    cost_usd: Decimal | None
    low_usd: Decimal | None
    high_usd: Decimal | None

    def told(self) -> str:
        """Why the run has stopped, and what can be done."""
        stand = {"with an output": self.ok, "with one of no use": self.invalid, "failed": self.failed}
        came = ", ".join(f"{count:,} {words}" for words, count in stand.items() if count) or "nothing came of it"
        cost = f"It cost {usd(self.cost_usd)}" if self.cost_usd is not None else "What it cost is not known"
        if self.low_usd is not None and self.high_usd is not None:
            cost += f"; the other {self.rest:,} are likely to cost {usd(self.low_usd)} to {usd(self.high_usd)}"
        return (
            f"The pilot of {self.subjects:,} subjects is over: {came}. {cost}. Look at its outputs, then resume the "
            "run to send the rest, or cancel it."
        )


def size(text: str) -> int:
    """The number of subjects of a pilot, as people write it.

    :raises InputError: it is none.
    """
    digits = text.strip().replace(",", "")
    count = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 10 else 0
    if not 1 <= count <= MOST:
        raise InputError(f"A pilot is over a number of subjects from 1 to {MOST:,}: 50.")
    return count


def over(tx: Connection, run_id: int) -> str | None:
    """Note that a run's pilot is through and that nothing of the run goes on but what waits for its release.

    :returns: why the run pauses now; None: it has no pilot, or not so far, or was released.
    """
    waits = db.scalar(
        tx,
        "SELECT pilot IS NOT NULL AND pilot_released_at IS NULL AND planned_at IS NOT NULL FROM runs WHERE id = :id",
        id=run_id,
    )
    if not waits:
        return None
    going_on = db.scalar(
        tx,
        "SELECT EXISTS (SELECT 1 FROM batches b WHERE b.run_id = :id "  # noqa: S608 - a constant
        f"AND b.state NOT IN ('done', 'failed', 'discarded') AND NOT ({_WAITING}))",
        id=run_id,
    )
    found = None if going_on else of_run(tx, run_id)
    if found is None or found.open or not found.rest:
        return None
    db.run(tx, "UPDATE runs SET pilot_over_at = coalesce(pilot_over_at, now()) WHERE id = :id", id=run_id)
    return found.told()


def release(tx: Connection, run_id: int) -> bool:
    """Let the rest of a run go, once its pilot is through; False: there was nothing to release.

    The caller has made its batches due before.
    """
    return bool(
        db.run(
            tx,
            "UPDATE runs SET pilot_released_at = now() WHERE id = :id AND pilot_over_at IS NOT NULL "
            "AND pilot_released_at IS NULL",
            id=run_id,
        )
    )


def of_run(tx: Connection, run_id: int) -> Pilot | None:
    """Where a run's pilot stands; None: it has none, or is not cut yet."""
    run = db.row(
        tx,
        "SELECT pilot, pilot_over_at IS NOT NULL AS through, pilot_released_at IS NOT NULL AS released FROM runs "
        "WHERE id = :id",
        id=run_id,
    )
    batches = db.row(
        tx,
        f"""
        SELECT array_agg(b.id) FILTER (WHERE {_AHEAD}) AS ids,
               coalesce(array_agg(b.api_id) FILTER (WHERE b.role = 'pilot' AND b.api_id IS NOT NULL), '{{}}') AS pilots,
               coalesce(array_agg(b.api_id) FILTER (WHERE {_AHEAD} AND b.api_id IS NOT NULL), '{{}}') AS ahead,
               coalesce(sum(b.total) FILTER (WHERE {_WAITING}), 0) AS rest,
               sum(b.body_bytes) FILTER (WHERE {_WAITING}) / sum(b.total) FILTER (WHERE {_WAITING}) AS bytes_of_rest,
               sum(b.body_bytes) FILTER (WHERE b.role = 'pilot') / sum(b.total) FILTER (WHERE b.role = 'pilot') AS bytes
        FROM batches b WHERE b.run_id = :id
        """,  # noqa: S608 - constants
        id=run_id,
    )
    if run is None or run.pilot is None or batches.ids is None:
        return None
    stand = db.row(
        tx,
        "SELECT coalesce(sum(i.ok), 0) AS ok, coalesce(sum(i.invalid), 0) AS invalid, "
        "coalesce(sum(i.succeeded), 0) AS succeeded, "
        "coalesce(sum(i.errored + i.canceled + i.expired + i.missing + i.stopped), 0) AS failed, "
        "(SELECT coalesce(sum(pending), 0) FROM tallies WHERE batch_id = ANY(:ids) AND scope = 'requests') AS pending "
        "FROM tallies i WHERE i.batch_id = ANY(:ids) AND i.scope = 'items'",
        ids=list(batches.ids),
    )
    cost = _cost(tx, batches.ahead)
    low, high = _of_the_rest(tx, batches)
    return Pilot(
        subjects=run.pilot,
        rest=int(batches.rest),
        through=run.through,
        released=run.released,
        ok=int(stand.ok),
        invalid=int(stand.invalid),
        failed=int(stand.failed),
        open=int(stand.pending + stand.succeeded - stand.ok - stand.invalid),
        answers=cost.answers,
        cost_usd=None if cost.unpriced else cost.usd,
        low_usd=low,
        high_usd=high,
    )


def first(tx: Connection, run_id: int) -> Sequence[Any]:
    """The first subjects of a run's pilot: id of the request, key, state (of the output, else of the request), the
    beginning of the output's value as JSON text, and error.
    """
    return db.rows(
        tx,
        "SELECT r.id, s.key, coalesce(i.output_state, i.state) AS state, left(o.value::text, 300) AS value, i.error "  # noqa: S608 - a constant
        "FROM requests r JOIN items i ON i.id = r.item_id JOIN subjects s ON s.id = i.subject_id "
        "LEFT JOIN outputs o ON o.request_id = r.id AND o.state = 'ok' "
        f"WHERE r.batch_id IN (SELECT b.id FROM batches b WHERE b.run_id = :id AND {_AHEAD}) "
        "AND r.state <> 'pending' ORDER BY r.id LIMIT :most",
        id=run_id,
        most=SHOWN,
    )


def _cost(tx: Connection, api_ids: list[str]) -> Any:
    return db.row(
        tx,
        "SELECT coalesce(sum(cost_usd), 0) AS usd, CAST(coalesce(sum(lines), 0) AS bigint) AS answers, "
        "coalesce(sum(unpriced), 0) AS unpriced FROM ledger_tallies WHERE api_batch_id = ANY(:ids)",
        ids=list(api_ids),
    )


def _of_the_rest(tx: Connection, batches: Any) -> tuple[Decimal | None, Decimal | None]:
    """What is likely for the rest, by what the pilot's own answers cost, and by how much longer its requests are."""
    found = db.row(
        tx,
        "SELECT count(*) AS lines, count(cost_usd) AS priced, avg(cost_usd) AS mean, "
        "coalesce(stddev_samp(cost_usd), 0) AS spread FROM ledger_lines WHERE api_batch_id = ANY(:ids)",
        ids=list(batches.pilots),
    )
    if not found.lines or found.priced < found.lines or not batches.bytes_of_rest:
        return None, None
    longer = Decimal(batches.bytes_of_rest) / Decimal(batches.bytes)
    reach = SURE * Decimal(found.spread) / Decimal(found.lines).sqrt() + MARGIN * found.mean
    low = max(Decimal(), found.mean - reach) * min(Decimal(1), longer)
    high = (found.mean + reach) * max(Decimal(1), longer)
    return low * int(batches.rest), high * int(batches.rest)
