"""A dataset made to hold what a new file holds: how the two differ, and the next revision made of that.
The step `import` calls it within its transactions, with the new records staged in `upload_records`.

A record whose content has changed is a new subject behind all others, and the former one is gone from the new revision
on; so runs over an earlier revision keep their subjects. See `webapp.runs.selections`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.errors import InputError

EXAMPLES = 5

_STAGED = (
    "FROM upload_records u LEFT JOIN subjects s ON s.dataset_id = :dataset AND s.key = u.key AND s.gone_in IS NULL"
)
_ABSENT = """
    FROM subjects s WHERE s.dataset_id = :dataset AND s.gone_in IS NULL
    AND NOT EXISTS (SELECT 1 FROM upload_records u WHERE u.upload_id = :upload AND u.key = s.key)
"""


@dataclass(frozen=True, slots=True)
class Difference:
    """How staged records differ from a revision of a dataset, in records; and the first keys of each kind."""

    against: int
    added: int
    changed: int
    same: int
    absent: int
    examples: dict[str, list[str]]


def lock(tx: Connection, dataset_id: int) -> Any:
    """A dataset's row, locked until the transaction ends: two refreshes come one after the other."""
    return db.row(tx, "SELECT id, revision, subjects FROM datasets WHERE id = :id FOR UPDATE", id=dataset_id)


def difference(tx: Connection, upload_id: int, dataset: Any) -> Difference:
    """Compare the staged records of an upload with a dataset.

    :param dataset: its row, as `lock` gives it.
    """
    _whole_tables(tx)
    binds = {"dataset": dataset.id, "upload": upload_id}
    counts = db.row(
        tx,
        "SELECT count(*) FILTER (WHERE s.id IS NULL) AS added, "
        "count(*) FILTER (WHERE s.content_hash <> u.content_hash) AS changed, "
        f"count(*) FILTER (WHERE s.content_hash = u.content_hash) AS same {_STAGED} WHERE u.upload_id = :upload",
        **binds,
    )
    found = {
        "added": f"SELECT u.key {_STAGED} WHERE u.upload_id = :upload AND s.id IS NULL ORDER BY u.position",
        "changed": f"SELECT u.key {_STAGED} WHERE u.upload_id = :upload AND s.content_hash <> u.content_hash "
        "ORDER BY u.position",
        "absent": f"SELECT s.key {_ABSENT} ORDER BY s.position",
    }
    examples = {
        name: [key for (key,) in db.rows(tx, f"{statement} LIMIT {EXAMPLES}", **binds)]
        for name, statement in found.items()
    }
    absent = dataset.subjects - counts.changed - counts.same
    return Difference(dataset.revision, counts.added, counts.changed, counts.same, absent, examples)


def check_kind(tx: Connection, upload_id: int, dataset_id: int) -> None:
    """Pass when the staged records are of the kind that the dataset holds.

    :raises InputError: they are not.
    """
    staged = db.scalar(tx, "SELECT kind FROM upload_records WHERE upload_id = :id LIMIT 1", id=upload_id)
    held = db.scalar(tx, "SELECT kind FROM subjects WHERE dataset_id = :id LIMIT 1", id=dataset_id)
    if held is not None and staged != held:
        raise InputError(
            f"The file holds records of kind {staged}, and the dataset those of kind {held}; "
            "make a new dataset of the file."
        )


def refresh(tx: Connection, upload_id: int, dataset: Any, *, remove_absent: bool) -> int:
    """Make the next revision of a dataset out of staged records; its number.

    :param dataset: its row, locked by `lock`.
    :param remove_absent: records that are not staged are gone from it, too.
    """
    _whole_tables(tx)
    binds = {"dataset": dataset.id, "upload": upload_id, "revision": dataset.revision + 1}
    base = db.scalar(tx, "SELECT max(position) + 1 FROM subjects WHERE dataset_id = :dataset", dataset=dataset.id)
    if remove_absent:
        db.run(tx, f"UPDATE subjects SET gone_in = :revision WHERE id IN (SELECT s.id {_ABSENT})", **binds)  # noqa: S608 - a constant
    db.run(
        tx,
        "UPDATE subjects s SET gone_in = :revision FROM upload_records u WHERE u.upload_id = :upload "
        "AND s.dataset_id = :dataset AND s.gone_in IS NULL AND s.key = u.key AND s.content_hash <> u.content_hash",
        **binds,
    )
    # Those that have changed are gone by now, so they are new as well.
    db.run(
        tx,
        f"""
        INSERT INTO subjects (dataset_id, position, kind, key, content_hash, image, size, data, added_in)
        SELECT :dataset, :base + row_number() OVER (ORDER BY u.position) - 1, u.kind, u.key, u.content_hash, u.image,
               u.size, u.data, :revision {_STAGED} WHERE u.upload_id = :upload AND s.id IS NULL
        """,
        base=base or 0,
        **binds,
    )
    db.run(
        tx,
        "UPDATE datasets SET revision = :revision, subjects = "
        "(SELECT count(*) FROM subjects WHERE dataset_id = :dataset AND gone_in IS NULL) WHERE id = :dataset",
        dataset=dataset.id,
        revision=dataset.revision + 1,
    )
    return int(dataset.revision + 1)


def _whole_tables(tx: Connection) -> None:
    """Let the planner compare the two as wholes: of records just staged it knows nothing, and would look each up."""
    db.run(tx, "SELECT set_config('enable_nestloop', 'off', true)")
