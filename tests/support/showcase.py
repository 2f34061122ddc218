"""An installation with something to see on every page, and the address of every page there is.

The walks of the browser tests are over it: a page that is new is walked by itself, or the walk says what it lacks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path

from flask import Flask
from PIL import Image as Picture
from support import filling, plugin_wheels
from support.desk import DeskDriver, documents
from support.filling import NEW_PRICE
from support.people import make_person
from support.sandbox import Sandbox
from support.unknown import slow_stranger
from support.uploading import Uploads
from werkzeug.routing import Rule

from webapp import db, hearts, wishes
from webapp.batches.naming import new_token
from webapp.batches.reprocessing import Which
from webapp.batches.states import FailureClass
from webapp.money import overrides
from webapp.money.caps import Scope
from webapp.runs.schedules import Wanted
from webapp.runs.staleness import Over

# What is no page: files to keep, pictures, and what scripts and machines ask.
NO_PAGES = re.compile(
    r"^/(static|admin|charts|live|healthz|readyz|logout)\b|\.(json|jsonl|csv|svg)$|/image/|/picture/|/export\b"
)


@dataclass(frozen=True)
class Address:
    """A page, by the rule it is found with, and an address of it that has something to show."""

    rule: str
    path: str


def fill(desk: DeskDriver, sandbox: Sandbox, folder: Path) -> None:
    """Runs that have ended, failed in part, wait for a person, and are under way; with images, and a stranger."""
    desk.change(batch_max_requests=20)
    sandbox.configure(invalid_share=0.1, overloaded_share=0.1, nasty_share=0.2, nasty_bytes=400)
    first = desk.run(
        [*documents(70), {"key": "k" * 200, "text": "alpha"}, {"key": "<script>alert(1)</script>", "text": "b"}]
    )
    sandbox.configure(invalid_share=0, overloaded_share=0, nasty_share=0)
    folder.mkdir()
    for n in range(4):
        Picture.new("RGB", (320, 200), (40 * n, 90, 200 - 30 * n)).save(folder / f"picture-{n}.png")
    desk.work_until_over(desk.start_folder(folder, "alt_text"))
    piloted = desk.start(documents(12), task="summarise")
    desk.execute("UPDATE runs SET pilot = 4 WHERE id = :id", id=piloted)
    desk.work_until_over(piloted, hurry=True)
    wishes.ask_reprocess(first, Which.ALL, version=desk.desk.registry.task("classify").version, actor="ann@example.com")
    wishes.ask_resubmit(first, [FailureClass.FIX], actor="ann@example.com")
    desk.work_until_over(first, hurry=True)
    nightly = Wanted("Nightly", Over.STALE, "30 2 * * *", "Europe/Berlin")
    wishes.ask_schedule(1, "summarise", {}, nightly, actor="ann@example.com", token=new_token())
    wishes.ask_cap(Scope.TASK, "classify", Decimal(25), actor="ann@example.com")
    wishes.ask_cap(Scope.RUN, str(first), Decimal("0.5"), actor="ann@example.com")
    filling.deliver(first)
    make_person("operator", "ann@example.com")
    with db.transaction() as tx:
        overrides.add(tx, overrides.Wanted("claude-new", date(2026, 1, 1), NEW_PRICE, "A letter."), actor="ann")
    _uploads(desk)
    _held(desk, sandbox)
    plugin_wheels.keep("ann@example.com")
    hearts.beat("worker one", "worker")
    hearts.beat("clock one", "clock")


def _uploads(desk: DeskDriver) -> None:
    """Files: one with bad records, one that would refresh the first dataset, one that nobody has looked at."""
    sent = Uploads(desk)
    sent.imported("people.csv", b"key,text\na,alpha\n,nobody\na,again\n")
    sent.imported("next.csv", b"key,text\ndoc-0,changed\nnew,beta\n", dataset_id=1)
    sent.store("waiting.csv", b"key,text,more\n" + b"k" * 200 + b",alpha," + b"x" * 300 + b"\n,none,\n")
    wishes.ask_outputs(1, actor="ann@example.com", token=new_token())
    query = {"database": "env:NOT_THERE", "query": "SELECT id AS key,\n  body AS text\nFROM letters"}
    wishes.ask_source("sql_query", query, dataset_name="Letters", actor="ann@example.com", token=new_token())
    desk.perform_due()


def _held(desk: DeskDriver, sandbox: Sandbox) -> None:
    """A batch that may be one of two at the API, a run that is paused, and one under way."""
    desk.change(unknown_grace=900)
    sandbox.configure(delay=3600, create_faults="drop_after")
    unknown = desk.start(documents(5))
    desk.perform("plan", unknown)
    batch_id = desk.scalar("SELECT id FROM batches WHERE run_id = :id", id=unknown)
    desk.perform("submit", batch_id)
    sandbox.configure(create_faults="")
    slow_stranger(sandbox)
    sandbox.configure(delay=3600)
    desk.hurry()
    desk.perform("submit", batch_id)
    paused = desk.start(documents(30))
    wishes.ask_pause(paused, actor="ann@example.com")
    desk.start(documents(35))
    for _ in range(3):
        desk.hurry()
        desk.perform_due()


def one(query: str) -> Callable[[DeskDriver], object]:
    """The first value that a query finds."""
    return lambda desk: desk.scalar(query)


# By the argument of a rule, the row whose page has the most to show.
EXAMPLES: dict[str, Callable[[DeskDriver], object]] = {
    "run_id": lambda _: 1,
    "wish_id": lambda _: 1,
    "cap_id": lambda _: 1,
    "price_id": lambda _: 1,
    "verb": lambda _: "cancel",
    "user_id": one("SELECT max(id) FROM users"),
    "what": lambda _: "password",
    "schedule_id": lambda _: 1,
    "destination_id": lambda _: 1,
    "batch_id": lambda _: 1,
    "dataset_id": lambda _: 1,
    "subject_id": lambda _: 1,
    "source_name": lambda _: "sql_query",
    "plugin": lambda _: plugin_wheels.NAME,
    "deed": lambda _: "rollback",
    "install_id": one("SELECT id FROM plugin_installs WHERE state = 'waiting'"),
    "upload_id": one("SELECT id FROM uploads WHERE state = 'compared'"),
    "request_id": one(
        "SELECT r.id FROM requests r JOIN items i ON i.id = r.item_id JOIN subjects s ON s.id = i.subject_id "
        "WHERE s.image IS NOT NULL ORDER BY r.id LIMIT 1"
    ),
}
# Where the rule alone does not say enough, or another row shows more.
SPECIAL: dict[str, Callable[[DeskDriver], str]] = {
    rule: lambda desk, rule=rule: rule.replace(  # type: ignore[misc]
        "<row:batch_id>", str(desk.scalar("SELECT id FROM batches WHERE state = 'submit_unknown'"))
    )
    for rule in ("/batches/<row:batch_id>/resend", "/batches/<row:batch_id>/abandon", "/batches/<row:batch_id>/adopt")
} | {"/plugins/<plugin>/settings": lambda _: "/plugins/limits/settings"}
# Seen beside those that the rules give: the same pages in another state.
MORE = (
    "/requests/?run=1&state=errored",
    "/requests/?run=x&state=nonsense",
    "/requests/?q=nothing-like-it",
    "/runs/?state=cancelled",
    "/runs/3/",
    "/runs/3/resume",
    "/requests/resubmit?run=1",
    "/requests/reprocess?run=1",
    "/requests/rebuild?run=1",
    "/datasets/uploads/1/",
    "/datasets/uploads/3/",
    "/datasets/uploads/4/",
    "/datasets/uploads/5/",
    "/datasets/sources/sql_query?upload=5",
    "/datasets/sources/sql_query?dataset=1",
    "/datasets/?q=nothing-like-it",
    "/datasets/1/subjects/?q=doc-1",
    "/runs/new?dataset=1",
    "/runs/new?dataset=1&task=summarise",
    "/runs/new?repeat=1",
    "/schedules/new?repeat=1",
    "/money/?by=model&task=classify",
    "/money/?by=dataset",
    "/money/?from=2020-01-01&to=2020-02-01",
    "/money/?from=2020-01-01&to=2026-11-30&owner=nobody",
    "/money/prices/?model=nothing-like-it",
    "/money/prices/new?model=claude-haiku-5-5",
    "/destinations/new?sink=sql_table",
    "/destinations/2/",
    "/plugins/classify/",
    "/plugins/limits/",
    "/plugins/batchdesk-stamp/remove",
    "/plugins/installs/2/",
    "/no/such/page",
)


def addresses(app: Flask, desk: DeskDriver) -> Iterator[Address]:
    """Every page that is got, once, and some of them in other states."""
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        if "GET" in (rule.methods or ()) and not NO_PAGES.search(rule.rule):
            yield Address(rule.rule, _path(rule, desk))
    yield from (Address(path, path) for path in MORE)


def _path(rule: Rule, desk: DeskDriver) -> str:
    if rule.rule in SPECIAL:
        return SPECIAL[rule.rule](desk)

    def value(found: re.Match[str]) -> str:
        name = found[1]
        assert name in EXAMPLES, f"{rule.rule}: name an example of {name} in tests/support/showcase.py"
        example = EXAMPLES[name](desk)
        assert example is not None, f"{rule.rule}: there is no example of {name}: make one in fill()"
        return str(example)

    return re.sub(r"<(?:[^:>]*:)?(\w+)>", value, rule.rule)
