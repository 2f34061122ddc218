"""What new attempts are likely to cost: the mean of what was billed for the like of them, times their number.
Confirmations ask before money is spent. A first, rough room: it knows nothing of tokens, caches or prices to come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import Connection

from webapp import db
from webapp.records import jsontext

SAMPLE = 5_000  # billed answers that a mean is made of, over all runs asked about
LEAST_SAMPLE = 10  # of one run
ALIKE = 50  # latest runs of a task that are looked at for one with the same model


@dataclass(frozen=True, slots=True)
class Mean:
    """What an answer cost on average.

    :param own: whether the answers are of the run itself, and not of runs of the same task with the same model.
    """

    cost_usd: Decimal
    answers: int
    own: bool


@dataclass(frozen=True, slots=True)
class Estimate:
    """What some attempts are likely to cost; None: nothing of their kind has been answered, or priced, yet.

    :param own: as of `Mean`, for all of them.
    """

    cost_usd: Decimal | None
    answers: int
    own: bool


def means(tx: Connection, run_ids: Iterable[int]) -> dict[int, Mean]:
    """By run, what a billed answer of it costs, else one of runs like it; runs of which nothing is known lack."""
    wanted = sorted(set(run_ids))
    found = {run_id: Mean(cost, count, own=True) for run_id, (cost, count) in _means(tx, wanted).items()}
    for run_id in wanted:
        if run_id not in found:
            alike = _means(tx, _alike(tx, run_id))
            count = sum(answers for _, answers in alike.values())
            if count:
                cost = sum((mean * answers for mean, answers in alike.values()), Decimal()) / count
                found[run_id] = Mean(cost, count, own=False)
    return found


def likely(counts: Mapping[int, int], means: Mapping[int, Mean]) -> Estimate:
    """The cost of so many attempts of each run."""
    known = [means[run_id] for run_id, count in counts.items() if count and run_id in means]
    answers, own = sum(mean.answers for mean in known), all(mean.own for mean in known)
    if not known or any(count and run_id not in means for run_id, count in counts.items()):
        return Estimate(None, answers, own)
    parts = (count * means[run_id].cost_usd for run_id, count in counts.items() if count)
    return Estimate(sum(parts, Decimal()), answers, own)


def _means(tx: Connection, run_ids: list[int]) -> dict[int, tuple[Decimal, int]]:
    """By run, the mean cost of some of its billed answers, and of how many."""
    if not run_ids:
        return {}
    found = db.rows(
        tx,
        "SELECT run.id, avg(line.cost_usd) AS cost, count(*) AS answers "
        "FROM unnest(CAST(:ids AS bigint[])) AS run(id) CROSS JOIN LATERAL ("
        "SELECT cost_usd FROM ledger_lines WHERE run_id = run.id AND cost_usd IS NOT NULL LIMIT :sample) AS line "
        "GROUP BY run.id",
        ids=run_ids,
        sample=max(SAMPLE // len(run_ids), LEAST_SAMPLE),
    )
    return {line.id: (line.cost, line.answers) for line in found}


def _alike(tx: Connection, run_id: int) -> list[int]:
    """Other runs of the same task with the same model, the latest first."""
    found = db.rows(
        tx,
        "SELECT run.id, run.settings::text AS settings FROM runs mine JOIN runs run ON run.task = mine.task "
        "WHERE mine.id = :id ORDER BY run.id = :id DESC, run.id DESC LIMIT :limit",
        id=run_id,
        limit=ALIKE + 1,
    )
    models = {line.id: jsontext.loads(line.settings).get("model") for line in found}
    return [other for other, model in models.items() if other != run_id and model == models[run_id]]
