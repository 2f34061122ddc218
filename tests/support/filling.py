"""An installation that holds a row of every kind, and what stands in all its tables. Needs an application context."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

from support import plugin_wheels
from support.desk import DeskDriver, documents
from support.people import make_person
from support.sandbox import Sandbox
from support.unknown import stranger, unknown
from support.uploading import Uploads

from webapp import db, hearts, wishes
from webapp.batches.naming import new_token
from webapp.batches.reprocessing import Which
from webapp.batches.states import DeliveryState, FailureClass, move_delivery
from webapp.money import overrides
from webapp.money.caps import Scope
from webapp.records.escapes import storable
from webapp.runs.schedules import Wanted
from webapp.runs.staleness import Over

# What somebody might write who means harm, or does not care. Each would break out of another place.
HOSTILE = (
    "<script>alert('planted')</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)' x='",
    "</pre></textarea></title><h1>planted</h1>",
    "javascript:alert(1)",
    "{{ 7 * 191 }} {% raise %}",
    "\u202egnitset\u2066 \u2028 line",
    "control \x01\x07\x1b[31m \x7f \x85",
    '{"json": "</script><script>alert(2)</script>"}',
    "\r\nSet-Cookie: planted=1",
    "x" * 200_000,
)
# Where pages show text that people, files, the API or a plugin wrote.
TEXTS = (
    ("datasets", "name"),
    ("datasets", "source"),
    ("datasets", "created_by"),
    ("uploads", "name"),
    ("uploads", "dataset_name"),
    ("uploads", "reason"),
    ("uploads", "created_by"),
    ("upload_problems", "place"),
    ("upload_problems", "fault"),
    ("upload_problems", "remedy"),
    ("schedules", "name"),
    ("schedules", "outcome"),
    ("schedules", "problem"),
    ("schedules", "owner"),
    ("destinations", "sink"),
    ("destinations", "created_by"),
    ("destinations", "changed_by"),
    ("deliveries", "reason"),
    ("runs", "owner"),
    ("run_estimates", "model"),
    ("caps", "changed_by"),
    ("runs", "reason"),
    ("batches", "reason"),
    ("events", "reason"),
    ("items", "error"),
    ("results", "error_message"),
    ("outputs", "reason"),
    ("outputs", "task_version"),
    ("plugin_versions", "version"),
    ("plugin_versions", "file_name"),
    ("plugin_versions", "created_by"),
    ("plugins", "changed_by"),
    ("plugin_installs", "wanted"),
    ("plugin_installs", "version"),
    ("plugin_installs", "file_name"),
    ("plugin_installs", "reason"),
    ("plugin_installs", "traceback"),
    ("plugin_installs", "created_by"),
    ("plugin_installs", "confirmed_by"),
    ("steps", "error"),
    ("submissions", "error"),
    ("price_overrides", "note"),
    ("price_overrides", "created_by"),
)
# A price as an admin may give it: dearer for long prompts.
_RATES = {"input": "3", "write_5m": "4", "write_1h": "6", "read": "0.3", "output": "15"}
NEW_PRICE = {**_RATES, "over": {"tokens": 100_000, **{name: f"{rate}0" for name, rate in _RATES.items()}}}


def fill(desk: DeskDriver, sandbox: Sandbox) -> None:
    """A run of answers that give trouble, failed and processed again; a held batch; one that waits; people."""
    sandbox.configure(nasty_share=0.5, nasty_bytes=3_000, invalid_share=0.3)
    run_id = desk.run(documents(40))
    sandbox.configure(nasty_share=0, invalid_share=0)
    wishes.ask_resubmit(run_id, [FailureClass.FIX], actor="t")
    wishes.ask_reprocess(run_id, Which.ALL, version=desk.desk.registry.task("classify").version, actor="t")
    desk.work_until_over(run_id)
    sent = Uploads(desk)
    sent.imported("bad.csv", b"key,text\n,nobody\n")
    sent.imported("next.csv", b"key,text\ndoc-0,changed\n", dataset_id=1)
    sent.store("waiting.csv", b"key,text\na,alpha\n")
    wishes.ask_outputs(run_id, actor="t", token=new_token())
    wishes.ask_source("files", {"path": "a"}, dataset_name="a", actor="t", token=new_token())
    desk.perform_due()
    unknown(desk, sandbox, "drop_after")
    stranger(sandbox)
    wishes.ask_look(actor="t")
    desk.perform_due()
    desk.start(documents(3))
    nightly = Wanted("Nightly", Over.STALE, "30 2 * * *", "Europe/Berlin")
    wishes.ask_schedule(1, "summarise", {}, nightly, actor="t", token=new_token())
    wishes.ask_cap(Scope.TASK, "classify", Decimal(5), actor="t")
    wishes.ask_cap(Scope.RUN, str(run_id), Decimal("0.5"), actor="t")
    for model in ("claude-new", "claude-haiku-4-5"):
        with db.transaction() as tx:
            overrides.add(tx, overrides.Wanted(model, date(2026, 1, 1), NEW_PRICE, "A letter."), actor="t")
    deliver(run_id)
    plugin_wheels.keep("t")
    for role in ("viewer", None):
        make_person(role, f"{role}-filled")


def deliver(run_id: int) -> None:
    """A destination with a delivery that has failed, and one that is disabled."""
    for name in ("there", "elsewhere"):
        wishes.ask_make_destination(name, "sql_table", {"url": "env:NOT_THERE"}, actor="t")
    wishes.ask_deliver(run_id, ["there", "elsewhere"], actor="t")
    wishes.ask_switch_destination(2, on=False, actor="t")
    with db.transaction() as tx:
        for (failed,) in db.rows(tx, "SELECT id FROM deliveries WHERE kind = 'sink'"):
            move_delivery(tx, failed, DeliveryState.FAILED, actor="t", words="It failed.", reason="It is away.")


def plant(words: str) -> None:
    """Put words into all that text, and into what another process could not load: nobody else writes for that one."""
    stored = storable(words)
    hearts.beat("worker filled", "worker", None, [dict.fromkeys(("plugin", "source", "error", "traceback"), stored)])
    with db.transaction() as tx:
        for table, column in TEXTS:
            db.run(tx, f"UPDATE {table} SET {column} = :words", words=stored)
        db.run(
            tx,
            "UPDATE run_estimates SET reasons = json_build_array(CAST(:words AS text), CAST(:words AS text))",
            words=stored,
        )
        db.run(tx, "UPDATE caps SET target = left(:words, 200) WHERE scope = 'task'", words=stored)
        db.run(tx, "UPDATE users SET email = id || :words WHERE email NOT LIKE '%@desk.example'", words=stored[:200])
        db.run(
            tx,
            "UPDATE events SET actor = left(:words, 200), target = left(:words, 200), target_kind = 'person', "
            "address = left(:words, 100), kind = CASE kind WHEN 'move' THEN kind ELSE 'note' END",
            words=stored,
        )
        about = (
            "json_build_object('summary', w, 'author', w, 'license', w, 'requires', ARRAY[w], 'hooks', ARRAY[w], "
            "'modules', ARRAY[w], 'entry_points', ARRAY[]::text[], 'files', 1, 'size', 1)"
        )
        for table in ("plugin_versions", "plugin_installs"):
            db.run(tx, f"UPDATE {table} SET about = {about} FROM (SELECT CAST(:words AS text)) v (w)", words=stored)
        db.run(tx, "UPDATE strays SET custom_id = left(:words, 64), processing_status = left(:words, 64)", words=stored)


def contents() -> dict[str, tuple[Any, ...]]:
    """What stands in each table but the heartbeats: the count of rows, and a sum over the versions of all of them."""
    found = {}
    with db.transaction() as tx:
        for name in db.rows(
            tx,
            # Heartbeats are of the processes, and nobody's deed.
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'processes' ORDER BY 1",
        ):
            sums = db.row(tx, f"SELECT count(*), sum(hashtextextended(ctid::text || xmin::text, 0)) FROM {name[0]}")
            found[name[0]] = tuple(sums)
    return found


def changed(before: dict[str, tuple[Any, ...]], after: dict[str, tuple[Any, ...]]) -> list[str]:
    """The tables that hold something else than before."""
    return [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
