"""The lists of runs and of batches: what they are filtered and sorted by, and their rows.
The pages of runs and batches ask `runs` and `batches` for all that their templates show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.admin import progress
from webapp.admin.filters import Asked, Cursor, Found, page_of
from webapp.batches.states import BatchState, RunState
from webapp.money import ledger
from webapp.records.escapes import readable

PER_PAGE = 25
UNDER_WAY = ("planning", "running", "paused")


@dataclass(frozen=True, slots=True)
class Sort:
    """One order of a list.

    :param column: what its rows are ordered by before their ids, or None.
    :param rising: from the lowest to the highest.
    :param only: a condition on what belongs in it at all.
    """

    words: str
    column: str | None = None
    rising: bool = False
    only: str = "true"


RUN_SORTS = {
    "newest": Sort("newest first"),
    "oldest": Sort("oldest first", rising=True),
    "subjects": Sort("most subjects first", "subjects"),
    "longest": Sort("longest under way first", rising=True, only="r.state IN ('planning', 'running', 'paused')"),
}
BATCH_SORTS = {
    "newest": Sort("newest first"),
    "oldest": Sort("oldest first", rising=True),
    "requests": Sort("most requests first", "total"),
    "waiting": Sort(
        "longest in their state first", "state_since", True, "b.state NOT IN ('done', 'failed', 'discarded')"
    ),
}


# Of runs r: whether what they cost was made up. Where there is no sandbox account, no batch is looked at.
SANDBOX = (
    "EXISTS (SELECT 1 FROM accounts WHERE sandbox) AND EXISTS "
    "(SELECT 1 FROM batches s JOIN accounts a ON a.id = s.account_id WHERE s.run_id = r.id AND a.sandbox)"
)


def runs(tx: Connection, asked: Asked, *, size: int | None = None) -> dict[str, Any]:
    """The list of runs, as its template shows it.

    :param size: rows of the page, if others than usual.
    """
    tasks = tasks_of(tx)
    # By how they are shown, which is how they are asked for.
    owners = {readable(one): one for (one,) in db.rows(tx, "SELECT DISTINCT owner FROM runs ORDER BY owner")}
    since, until = asked.days()
    binds = {
        "state": asked.choice("state", list(RunState)),
        "task": asked.choice("task", tasks),
        "owner": owners.get(asked.choice("owner", owners) or ""),
        "dataset": asked.text("dataset"),
        "since": since,
        "until": until,
    }
    where = """
        (CAST(:state AS text) IS NULL OR r.state = :state) AND (CAST(:task AS text) IS NULL OR r.task = :task)
        AND (CAST(:owner AS text) IS NULL OR r.owner = :owner)
        AND (CAST(:dataset AS text) IS NULL OR CAST(d.id AS text) = :dataset
             OR position(lower(:dataset) IN lower(d.name)) > 0)
        AND (CAST(:since AS timestamptz) IS NULL OR r.created_at >= :since)
        AND (CAST(:until AS timestamptz) IS NULL OR r.created_at < :until)
    """
    columns = f"""
        r.id, r.task, r.task_version, r.subjects, r.state, r.state_since, r.reason, r.owner, r.created_at,
        d.name AS dataset, {SANDBOX} AS sandbox
    """
    shown = _page(
        tx,
        asked,
        RUN_SORTS,
        "runs",
        "r",
        columns,
        "JOIN datasets d ON d.id = r.dataset_id",
        where,
        binds,
        size or PER_PAGE,
    )
    found = shown["found"].rows
    return shown | {
        "states": list(RunState),
        "tasks": tasks,
        "owners": list(owners),
        "bars": progress.of_runs(tx, [(run.id, run.subjects) for run in found]),
        "costs": ledger.totals_of_runs(tx, [run.id for run in found]),
    }


def batches(tx: Connection, asked: Asked, *, size: int | None = None) -> dict[str, Any]:
    """The list of batches, as its template shows it; see `runs`."""
    tasks = tasks_of(tx)
    accounts = {
        str(one.id): f"#{one.id} " + ("sandbox" if one.sandbox else one.organization_id or one.base_url)
        for one in db.rows(tx, "SELECT id, organization_id, base_url, sandbox FROM accounts ORDER BY id LIMIT 100")
    }
    since, until = asked.days()
    account = asked.choice("account", list(accounts))
    binds = {
        "state": asked.choice("state", list(BatchState)),
        "run": asked.row_id("run"),
        "task": asked.choice("task", tasks),
        "account": int(account) if account else None,
        "api_id": asked.text("q"),
        "since": since,
        "until": until,
    }
    where = """
        (CAST(:state AS text) IS NULL OR b.state = :state) AND (CAST(:run AS bigint) IS NULL OR b.run_id = :run)
        AND (CAST(:task AS text) IS NULL OR r.task = :task)
        AND (CAST(:account AS bigint) IS NULL OR b.account_id = :account)
        AND (CAST(:api_id AS text) IS NULL OR b.api_id = :api_id)
        AND (CAST(:since AS timestamptz) IS NULL OR b.created_at >= :since)
        AND (CAST(:until AS timestamptz) IS NULL OR b.created_at < :until)
    """
    columns = """
        b.id, b.run_id, b.ordinal, b.total, b.state, b.state_since, b.reason, b.api_id, b.created_at, r.task
    """
    shown = _page(
        tx,
        asked,
        BATCH_SORTS,
        "batches",
        "b",
        columns,
        "JOIN runs r ON r.id = b.run_id",
        where,
        binds,
        size or PER_PAGE,
    )
    found = shown["found"].rows
    return shown | {
        "states": list(BatchState),
        "tasks": tasks,
        "accounts": accounts,
        "bars": progress.of_batches(tx, [(batch.id, batch.total) for batch in found]),
    }


def tasks_of(tx: Connection) -> list[str]:
    """The tasks of all runs there have been."""
    return [task for (task,) in db.rows(tx, "SELECT DISTINCT task FROM runs ORDER BY task")]


def _page(
    tx: Connection,
    asked: Asked,
    sorts: dict[str, Sort],
    table: str,
    alias: str,
    columns: str,
    joins: str,
    where: str,
    binds: dict[str, Any],
    size: int,
) -> dict[str, Any]:
    """A page of a table in the order that is asked for, with its cursor and the count of all that fits."""
    chosen = asked.choice("sort", list(sorts)) or "newest"
    sort = sorts[chosen]
    cursor = Cursor.of(asked, rising=sort.rising)
    source = f"FROM {table} {alias} {joins} WHERE {where} AND {sort.only}"

    def fetch(at: Cursor) -> Found:
        place = at.sql_by(table, alias, sort.column) if sort.column else at.sql(f"{alias}.id")
        order = at.order_by(alias, sort.column) if sort.column else at.order(f"{alias}.id")
        rows = db.rows(
            tx,
            f"SELECT {columns} {source} AND {place} ORDER BY {order} LIMIT :limit",
            start=at.start,
            limit=size + 1,
            **binds,
        )
        return Found(list(rows))

    return {
        "found": page_of(fetch, cursor, size),
        "asked": asked,
        "cursor": cursor,
        "count": db.scalar(tx, f"SELECT count(*) {source}", **binds),
        "sorts": {name: one.words for name, one in sorts.items()},
        "sort": chosen,
    }
