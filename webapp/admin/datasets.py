"""The pages of datasets: the list, and one dataset with its revisions, its runs and the first of its records.
Uploads and subjects have modules of their own, whose pages stand below the same address.
"""

from __future__ import annotations

from typing import Any

from flask import abort
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from webapp import db
from webapp.admin.filters import Asked, Cursor, Found, page_of
from webapp.admin.forms import registry
from webapp.admin.frame import expose, reading
from webapp.admin.payloads import laid_out
from webapp.admin.sources import SourcePages
from webapp.admin.subjects import SubjectPages, present
from webapp.admin.uploads import UploadPages
from webapp.batches.naming import new_token
from webapp.datasets.derived import run_named
from webapp.datasets.uploads import OPEN

PER_PAGE = 50
WINDOW = 20_000  # datasets that a search by name looks through before it stops and says so
START = "/runs/new?dataset="  # where a run over a dataset is started
FIRST = 10  # subjects on a dataset's own page
SHOWN = 30  # runs and revisions on it
WAITING = 20


class DatasetsPage(UploadPages, SourcePages, SubjectPages):
    """Datasets, newest first."""

    @expose("/")
    def index(self) -> ResponseReturnValue:
        tx, asked = reading(), Asked()
        cursor = Cursor.of(asked)
        name = asked.text("q")
        found = page_of(lambda at: _list(tx, at, name), cursor, PER_PAGE)
        return self.render(
            "desk/datasets.html",
            found=found,
            asked=asked,
            cursor=cursor,
            window=WINDOW,
            waiting=[] if asked.given else _waiting(tx),
        )

    @expose("/<row:dataset_id>/")
    def details(self, dataset_id: int) -> ResponseReturnValue:
        tx = reading()
        row = find(tx, dataset_id)
        revisions = _revisions(tx, dataset_id)
        return self.render(
            "desk/dataset.html",
            row=row,
            start=f"{START}{dataset_id}",
            revisions=revisions,
            shown=SHOWN,
            set_aside=[one for one in revisions if one.problems],
            waiting=_waiting(tx, dataset_id),
            runs=_runs(tx, dataset_id),
            subjects=present(tx, dataset_id, None, None, FIRST),
            **_origin(row),
        )


def _origin(row: Any) -> dict[str, Any]:
    """Where a dataset came from, if that was no file: a source with its settings, or a run."""
    if row.source_name is None:
        return {"origin": None}
    run_id = run_named(row.source_name)
    return {
        "origin": row.source_name,
        "source": registry().sources.get(row.source_name),
        "source_run": run_id,
        "source_settings": None if run_id else laid_out(row.settings_text),
        "token": new_token(),
    }


def find(tx: Connection, dataset_id: int) -> Any:
    """A dataset's row with the kind of its subjects; answers 404 when there is none."""
    row = db.row(
        tx,
        "SELECT d.*, d.source_settings::text AS settings_text, "
        "(SELECT s.kind FROM subjects s WHERE s.dataset_id = d.id ORDER BY s.position LIMIT 1) AS kind, "
        "(SELECT count(*) FROM (SELECT 1 FROM runs r WHERE r.dataset_id = d.id LIMIT 10000) r) AS runs "
        "FROM datasets d WHERE d.id = :id",
        id=dataset_id,
    )
    if row is None:
        abort(404, f"There is no dataset {dataset_id}.")
    return row


def _list(tx: Connection, cursor: Cursor, name: str | None) -> Found:
    """Datasets by id; a search by name looks through so many of them, and says where it stopped."""
    window = f"SELECT id, name FROM datasets WHERE {cursor.sql('id')} ORDER BY {cursor.order('id')} LIMIT {WINDOW}"  # noqa: S608 - the cursor writes names that we gave it
    rows = list(
        db.rows(
            tx,
            f"""
            SELECT d.*, k.kind, r.id AS run_id, r.task, r.state, r.created_at AS run_at FROM (
                SELECT id FROM ({window}) AS w
                WHERE CAST(:name AS text) IS NULL OR strpos(lower(w.name), lower(:name)) > 0
                ORDER BY {cursor.order("id")} LIMIT :limit
            ) AS wanted JOIN datasets d ON d.id = wanted.id
            LEFT JOIN LATERAL (SELECT s.kind FROM subjects s WHERE s.dataset_id = d.id ORDER BY s.position LIMIT 1) k
                ON true
            LEFT JOIN LATERAL (SELECT id, task, state, created_at FROM runs WHERE dataset_id = d.id
                               ORDER BY id DESC LIMIT 1) r ON true
            ORDER BY {cursor.order("d.id")}
            """,  # noqa: S608 - likewise
            name=name,
            start=cursor.start,
            limit=PER_PAGE + 1,
        )
    )
    if name is None or len(rows) > PER_PAGE:
        return Found(rows)
    last = db.row(
        tx,
        f"SELECT {'max' if cursor.up else 'min'}(id) AS id, count(*) AS seen FROM ({window}) AS w",  # noqa: S608 - likewise
        start=cursor.start,
    )
    return Found(rows, last.id if last.seen == WINDOW else None)


def _waiting(tx: Connection, dataset_id: int | None = None) -> list[Any]:
    """Uploads that are under way or wait for a person; there are few that are neither imported nor discarded."""
    return list(
        db.rows(
            tx,
            "SELECT u.id, u.name, u.size, u.source_name, d.name AS dataset, u.refreshes, u.state, u.created_by, "
            "u.created_at FROM uploads u LEFT JOIN datasets d ON d.id = u.dataset_id WHERE u.state = ANY(:states) "
            "AND (CAST(:dataset AS bigint) IS NULL OR u.dataset_id = :dataset) ORDER BY u.id DESC LIMIT :limit",
            states=list(OPEN),
            dataset=dataset_id,
            limit=WAITING,
        )
    )


def _revisions(tx: Connection, dataset_id: int) -> list[Any]:
    """What made each revision, the latest first; what the command line imported has no upload."""
    return list(
        db.rows(
            tx,
            "SELECT id, name, revision, added, changed, absent, remove_absent, refreshes, problems, created_by, "
            "state_since FROM uploads WHERE dataset_id = :id AND state = 'imported' ORDER BY id DESC LIMIT :limit",
            id=dataset_id,
            limit=SHOWN,
        )
    )


def _runs(tx: Connection, dataset_id: int) -> list[Any]:
    return list(
        db.rows(
            tx,
            "SELECT id, task, state, subjects, revision, owner, created_at FROM runs WHERE dataset_id = :id "
            "ORDER BY id DESC LIMIT :limit",
            id=dataset_id,
            limit=SHOWN,
        )
    )
