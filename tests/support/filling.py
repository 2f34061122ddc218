"""An installation that holds a row of every kind, and what stands in all its tables. Needs an application context."""

from __future__ import annotations

from typing import Any

from support.desk import DeskDriver, documents
from support.people import make_person
from support.sandbox import Sandbox

from webapp import db, wishes
from webapp.batches.reprocessing import Which

# What somebody might write who means harm, or does not care. Each would break out of another place.
HOSTILE = (
    "<script>alert('planted')</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)' x='",
    "</pre></textarea></title><h1>planted</h1>",
    "javascript:alert(1)",
    "{{ 7 * 191 }} {% raise %}",
    b"\\u202egnitset\\u2066 \\u2028 line".decode("unicode_escape"),
    b"control \\x01\\x07\\x1b[31m \\x7f \\x85".decode("unicode_escape"),
    '{"json": "</script><script>alert(2)</script>"}',
    "\r\nSet-Cookie: planted=1",
    "x" * 200_000,
)


def fill(desk: DeskDriver, sandbox: Sandbox) -> None:
    """Runs that ended in every way, a batch that is held, outputs that were replaced, people and what they did."""
    sandbox.configure(nasty_share=0.4, nasty_bytes=3_000, invalid_share=0.2)
    run_id = desk.run(documents(30))
    sandbox.configure(nasty_share=0, invalid_share=0)
    wishes.ask_reprocess(run_id, Which.ALL, version="1", actor="t") if desk.summary(run_id).succeeded else None
    desk.perform_due()
    cancelled = desk.start(documents(3))
    wishes.ask_cancel_run(cancelled, actor="t")
    desk.perform_due()
    desk.start(documents(5))
    desk.perform_due()
    for name in ("viewer", "nobody"):
        make_person(None if name == "nobody" else name, f"{name}-filled")


def plant(words: str) -> None:
    """Put words wherever a page shows text that people, files, the API or a plugin wrote."""
    with db.transaction() as tx:
        for table, column in TEXTS:
            db.run(tx, f"UPDATE {table} SET {column} = :words", words=words)
        db.run(
            tx,
            "UPDATE users SET email = id || :words WHERE email LIKE '%-filled%' OR email LIKE '%planted%'",
            words=words,
        )
        db.run(tx, "UPDATE events SET actor = :words, target = :words, target_kind = 'person', kind = CASE "
                   "WHEN kind = 'move' THEN kind ELSE 'note' END, address = left(:words, 100)", words=words)  # fmt: skip


TEXTS = (
    ("datasets", "name"),
    ("datasets", "source"),
    ("datasets", "created_by"),
    ("runs", "owner"),
    ("runs", "reason"),
    ("batches", "reason"),
    ("events", "reason"),
    ("items", "error"),
    ("results", "error_message"),
    ("outputs", "reason"),
    ("outputs", "task_version"),
    ("steps", "error"),
    ("submissions", "error"),
)


def tables() -> list[str]:
    with db.transaction() as tx:
        return [name for (name,) in db.rows(tx, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]


def contents() -> dict[str, tuple[Any, ...]]:
    """What stands in each table: the count of rows, and a sum over the versions of all of them."""
    found = {}
    with db.transaction() as tx:
        for name in db.rows(tx, "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"):
            sums = db.row(tx, f"SELECT count(*), sum(hashtextextended(ctid::text || xmin::text, 0)) FROM {name[0]}")
            found[name[0]] = tuple(sums)
    return found


def changed(before: dict[str, tuple[Any, ...]], after: dict[str, tuple[Any, ...]]) -> list[str]:
    """The tables that hold something else than before."""
    return [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
