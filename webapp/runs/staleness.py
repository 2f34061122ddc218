"""Which subjects lack an output as new as a task's version and settings: those that are new, changed, or have failed.
Runs over those only, previews and schedules read it here; this is the one place that says what `stale` means.

A subject is stale when no run of the same task, in the same version, with the same settings has an output of it that is
of use. A record that changed is a new subject, so it is stale by itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Connection

from webapp import db
from webapp.errors import NotFound
from webapp.hooks import Task
from webapp.records import jsontext
from webapp.runs.selections import IN_REVISION

COUNTED = 10_000  # positions of a dataset that a count reads; of a longer one it reads a sample
SAMPLED = 2_000


class Over(StrEnum):
    """Which subjects of a dataset's present revision a run is over."""

    ALL = "all"
    STALE = "stale"


def fingerprint(task: str, version: str, settings: BaseModel | Mapping[str, Any]) -> str:
    """The same for runs that ask the same of a subject, whatever the order that their settings are written in."""
    values = settings.model_dump(mode="json") if isinstance(settings, BaseModel) else settings
    return hashlib.sha256(json.dumps([task, version, values], sort_keys=True).encode("ascii")).hexdigest()


def same_runs(tx: Connection, dataset_id: int, task: Task[Any], settings: BaseModel) -> list[int]:
    """The runs over a dataset that ask the same, oldest first."""
    wanted = fingerprint(task.name, task.version, settings)
    found = db.rows(
        tx,
        "SELECT id, settings_hash, CASE WHEN settings_hash IS NULL THEN settings::text END AS settings FROM runs "
        "WHERE dataset_id = :dataset AND task = :task AND task_version = :version ORDER BY id",
        dataset=dataset_id,
        task=task.name,
        version=task.version,
    )

    def of(run: Any) -> str:
        # Runs that were made before there was the hash have none.
        return run.settings_hash or fingerprint(task.name, task.version, jsontext.loads(run.settings))

    return [run.id for run in found if of(run) == wanted]


# Of subjects s: none of the runs `:runs` has an output of use of it.
STALE = """NOT EXISTS (SELECT 1 FROM items i WHERE i.subject_id = s.id AND i.output_state = 'ok'
                       AND i.run_id = ANY(CAST(:runs AS bigint[])))"""


def select_stale(
    tx: Connection, run_id: int, dataset_id: int, revision: int, task: Task[Any], settings: BaseModel
) -> int:
    """Make the stale subjects of a revision a run's selection; how many they are. The run is not among those compared
    with: it has no outputs yet.
    """
    return db.run(
        tx,
        "INSERT INTO selections (run_id, position, subject_id) SELECT :run, s.position, s.id FROM subjects s "  # noqa: S608 - constants
        f"WHERE s.dataset_id = :dataset AND {IN_REVISION} AND {STALE}",
        run=run_id,
        dataset=dataset_id,
        revision=revision,
        runs=db.array(same_runs(tx, dataset_id, task, settings)),
    )


@dataclass(frozen=True, slots=True)
class Extent:
    """Which subjects a run would be over, as far as it can be told without reading all of them.

    :param count: of the subjects; an estimate unless `exact`.
    :param positions: of some of them, in order, spread over all; of all of them in a small dataset.
    """

    count: int
    exact: bool
    positions: list[int]


def extent(tx: Connection, dataset_id: int, over: Over, task: Task[Any], settings: BaseModel) -> Extent:
    """How far a run over a dataset would go. Reads so many rows at most, however many subjects there are."""
    dataset = db.row(
        tx,
        "SELECT d.revision, d.subjects, coalesce((SELECT max(position) FROM subjects WHERE dataset_id = d.id), -1) "
        "AS last FROM datasets d WHERE d.id = :id",
        id=dataset_id,
    )
    if dataset is None:
        raise NotFound(f"There is no dataset {dataset_id}.")
    whole = dataset.last < COUNTED
    looked_at = range(dataset.last + 1)
    if not whole:
        looked_at = [round(n * dataset.last / (SAMPLED - 1)) for n in range(SAMPLED)]  # type: ignore[assignment]
    runs = same_runs(tx, dataset_id, task, settings) if over == Over.STALE else []
    found = db.rows(
        tx,
        f"SELECT s.position, {STALE if over == Over.STALE else 'true'} AS taken FROM subjects s "  # noqa: S608 - constants
        f"WHERE s.dataset_id = :dataset AND {IN_REVISION} AND s.position = ANY(CAST(:positions AS int[])) "
        "ORDER BY s.position",
        dataset=dataset_id,
        revision=dataset.revision,
        positions=db.array(looked_at),
        runs=db.array(runs),
    )
    taken = [line.position for line in found if line.taken]
    if whole:
        return Extent(len(taken), True, taken)
    if over == Over.ALL:
        return Extent(dataset.subjects, True, taken)
    return Extent(round(dataset.subjects * len(taken) / max(1, len(found))), False, taken)
