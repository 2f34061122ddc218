"""The outputs of a run as the records of another dataset: copied within the database, with the records they are about.
The step `import` calls it, within its transactions.
"""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.errors import InputError, NotFound
from webapp.records import jsontext

KIND = "output"
TEXT_FIELD = "output"
_NAME = re.compile(r"run:([1-9][0-9]{0,17})")

# A run's usable outputs, each with its record to the letter; see `webapp.batches.queries` for which attempt counts.
_OUTPUTS = """
    SELECT i.position, s.key, s.image, '{"record":' || s.data::text || ',"output":' || o.value || :rest AS data
    FROM items i JOIN subjects s ON s.id = i.subject_id CROSS JOIN LATERAL (
        SELECT o.value::text AS value FROM requests r JOIN outputs o ON o.request_id = r.id
        WHERE r.item_id = i.id AND o.state = 'ok' ORDER BY r.attempt LIMIT 1
    ) AS o WHERE i.run_id = :run AND i.output_state = 'ok'
"""


def run_named(name: str) -> int | None:
    """The run that `run:12` stands for; None for any other name."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else None


def name_of(run_id: int) -> str:
    """What `run_named` reads: no plugin's source can be called so."""
    return f"run:{run_id}"


def title(tx: Connection, run_id: int) -> str:
    """What the outputs of a run are called.

    :raises NotFound: there is no such run.
    """
    return f"Outputs of run {run_id} ({_run(tx, run_id).task})"


def into_dataset(tx: Connection, run_id: int, dataset_id: int) -> int:
    """Copy a run's usable outputs into a dataset; how many."""
    return _copy(tx, run_id, "subjects", "dataset_id", dataset_id)


def into_staging(tx: Connection, run_id: int, upload_id: int) -> int:
    """Likewise where they wait until somebody confirms a refresh."""
    return _copy(tx, run_id, "upload_records", "upload_id", upload_id)


def _copy(tx: Connection, run_id: int, table: str, owner: str, owner_id: int) -> int:
    """:raises InputError: there is none."""
    run = _run(tx, run_id)
    told = {"run": run_id, "task": run.task, "model": jsontext.loads(run.shared or run.settings).get("model")}
    count = db.run(
        tx,
        f"""
        INSERT INTO {table} ({owner}, position, kind, key, content_hash, image, size, data)
        SELECT :owner, row_number() OVER (ORDER BY position) - 1, :kind, key,
               sha256(convert_to(data, 'UTF8') || coalesce(image, '')), image, octet_length(data), CAST(data AS json)
        FROM ({_OUTPUTS}) AS found
        """,  # noqa: S608 - our own names
        owner=owner_id,
        kind=KIND,
        run=run_id,
        rest=f",{jsontext.dumps(told).decode()[1:]}",
    )
    if not count:
        raise InputError(f"Run {run_id} has no output that is of use, so there is nothing to make a dataset of.")
    return count


def _run(tx: Connection, run_id: int) -> Any:
    run = db.row(
        tx, "SELECT task, settings::text AS settings, shared::text AS shared FROM runs WHERE id = :id", id=run_id
    )
    if run is None:
        raise NotFound(f"There is no run {run_id}.")
    return run
