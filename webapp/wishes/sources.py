"""What people ask of sources, and of runs whose outputs are to be a dataset: wishes like those in `wishes`, in a module
of their own for its length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import current_app

from webapp import db
from webapp.datasets import derived, sources
from webapp.jobs import nudge


def ask_source(
    name: str,
    settings: Mapping[str, Any],
    *,
    dataset_name: str,
    actor: str,
    token: str,
    skip_bad: bool = False,
    dataset_id: int | None = None,
) -> int:
    """Import from a plugin's source, or compare it with the dataset that it is to refresh; its upload's id. May be
    repeated: one import for each token. See `sources.ask`.

    :param settings: as people write them or as they are stored.
    :raises InputError: the source does not take these settings.
    """
    registry = current_app.extensions["batchdesk"].registry
    source = registry.source(name)
    parsed = registry.parse_settings(source, settings)
    with db.transaction() as tx:
        upload_id = sources.ask(
            tx,
            sources.Wanted.of(source, parsed),
            dataset_name=dataset_name,
            dataset_id=dataset_id,
            skip_bad=skip_bad,
            actor=actor,
            token=token,
        )
    nudge()
    return upload_id


def ask_outputs(
    run_id: int, *, actor: str, token: str, dataset_name: str | None = None, dataset_id: int | None = None
) -> int:
    """Make a dataset of a run's usable outputs, or compare them with one; its upload's id. See `ask_source`.

    :raises NotFound: there is no such run.
    """
    with db.transaction() as tx:
        wanted = sources.Wanted.outputs(tx, run_id)
        upload_id = sources.ask(
            tx,
            wanted,
            dataset_name=dataset_name or wanted.title,
            dataset_id=dataset_id,
            skip_bad=False,
            actor=actor,
            token=token,
        )
    nudge()
    return upload_id


def ask_source_again(dataset_id: int, *, actor: str, token: str) -> int:
    """Compare a dataset with what the source (or run) that it came from gives now; the upload's id. See `ask_source`.

    :raises Refused: it came from files.
    """
    with db.transaction() as tx:
        origin = sources.of_dataset(tx, dataset_id)
        name = db.scalar(tx, "SELECT name FROM datasets WHERE id = :id", id=dataset_id)
    run_id = derived.run_named(origin.source)
    if run_id is not None:
        return ask_outputs(run_id, dataset_id=dataset_id, actor=actor, token=token)
    return ask_source(
        origin.source, origin.settings, dataset_name=name, dataset_id=dataset_id, actor=actor, token=token
    )
