"""Imports that people ask of a plugin's source, or of a run's outputs, in place of a file that they upload; and from
where a dataset came.
The rows are those of uploads, and the step `import` does them; `webapp.datasets.sourcing` reads the source.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import BaseModel
from sqlalchemy import Connection

from webapp import db
from webapp.batches.books import note
from webapp.batches.states import UploadState, move_upload
from webapp.batches.steps import StepName, due
from webapp.datasets import derived, uploads
from webapp.errors import NotFound, Refused
from webapp.hooks import Registry, Source
from webapp.hooks.calls import text_field
from webapp.records import jsontext
from webapp.records.escapes import storable


class Origin(NamedTuple):
    """From where the records of a dataset, or of an import, come.

    :param source: the name of a plugin's source, or `run:12` for the outputs of a run.
    :param settings: of the source, as they are stored.
    """

    source: str
    settings: dict[str, Any]


class Wanted(NamedTuple):
    """What is to be imported.

    :param title: for people.
    :param text_field: the member of its records that holds their text.
    """

    origin: Origin
    title: str
    text_field: str

    @classmethod
    def of(cls, source: Source[Any], settings: BaseModel) -> Wanted:
        """What a source gives with some settings."""
        return cls(Origin(source.name, settings.model_dump(mode="json")), source.title, text_field(source, settings))

    @classmethod
    def outputs(cls, tx: Connection, run_id: int) -> Wanted:
        """The outputs of a run.

        :raises NotFound: there is no such run.
        """
        return cls(Origin(derived.name_of(run_id), {}), derived.title(tx, run_id), derived.TEXT_FIELD)


def ask(
    tx: Connection,
    wanted: Wanted,
    *,
    dataset_name: str,
    dataset_id: int | None,
    skip_bad: bool,
    actor: str,
    token: str,
) -> int:
    """Ask for an import of what no file holds; its upload's id. May be repeated: one for each token.

    :param dataset_id: the dataset that it is to refresh, once somebody has seen how they differ; None: a new one.
    :param skip_bad: go on without the records that cannot be used; they stay listed.
    """
    db.run(tx, "SELECT pg_advisory_xact_lock(hashtextextended(:token, 0))", token=token)
    made: int | None = db.scalar(tx, "SELECT id FROM uploads WHERE token = :token", token=token)
    if made is not None:
        return made
    uploads.clear_old(tx)
    upload_id: int = db.scalar(
        tx,
        "INSERT INTO uploads (name, dataset_name, dataset_id, refreshes, created_by, text_field, source_name, "
        "source_settings, token) VALUES (:name, :dataset_name, :dataset, :refreshes, :actor, :text, :source, "
        "CAST(:settings AS json), :token) RETURNING id",
        name=storable(wanted.title),
        dataset_name=storable(dataset_name),
        dataset=dataset_id,
        refreshes=dataset_id is not None,
        actor=actor,
        text=wanted.text_field,
        source=wanted.origin.source,
        settings=jsontext.dumps(wanted.origin.settings).decode(),
        token=token,
    )
    due(tx, StepName.IMPORT, upload_id)
    reason = f"Import from {wanted.origin.source} asked for."
    note(tx, run_id=None, target=(uploads.TARGET, str(upload_id)), actor=actor, reason=reason, kind="wish")
    move_upload(tx, upload_id, UploadState.IMPORTING, actor=actor, skip_bad=skip_bad)
    return upload_id


def of_dataset(tx: Connection, dataset_id: int) -> Origin:
    """From where a dataset's records came the last time.

    :raises NotFound: there is no such dataset.
    :raises Refused: they came from files.
    """
    found = db.row(
        tx, "SELECT source_name, source_settings::text AS settings FROM datasets WHERE id = :id", id=dataset_id
    )
    if found is None:
        raise NotFound(f"There is no dataset {dataset_id}.")
    if found.source_name is None:
        raise Refused(f"Dataset {dataset_id} does not come from a source: refresh it with a file.")
    return Origin(found.source_name, jsontext.loads(found.settings))


def of_upload(tx: Connection, registry: Registry, upload: Any) -> tuple[Source[Any], BaseModel]:
    """The source of an import, with its settings.

    :raises NotFound: no plugin that is loaded brings it.
    :raises InputError: it does not take these settings any more.
    """
    source = registry.source(upload.source_name)
    stored = db.scalar(tx, "SELECT source_settings::text FROM uploads WHERE id = :id", id=upload.id)
    return source, registry.parse_settings(source, jsontext.loads(stored))


def remember(tx: Connection, upload: Any, dataset_id: int) -> None:
    """Let a dataset know what it was made or refreshed from, if that was no file."""
    if upload.source_name is not None:
        db.run(
            tx,
            "UPDATE datasets SET source_name = u.source_name, source_settings = u.source_settings FROM uploads u "
            "WHERE datasets.id = :dataset AND u.id = :upload",
            dataset=dataset_id,
            upload=upload.id,
        )
