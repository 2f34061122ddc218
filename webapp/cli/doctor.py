"""`batchdesk doctor`: what is set up, what is up, what is wrong, and how to mend it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

import click
from flask import Flask, current_app

from webapp import (
    create_app,
    db,
    jobs,
    local,
    services,
)
from webapp.batches import (
    alarms,
    auditing,
    outages,
    queries,
)
from webapp.batches.outages import Part
from webapp.cli.environment import schema_versions
from webapp.errors import BatchdeskError, LocalServicesError
from webapp.installed import overview
from webapp.runs import retention
from webapp.settings import VARIABLES, Settings, load, without_credentials

SICK = 1

# What steps have met, and how to mend it.
OUTAGES = {
    Part.API: (
        "Calls of the API failed {times} times in a row",
        "It is asked again by itself. If it goes on: see the API's status page, ANTHROPIC_BASE_URL and the network.",
    ),
    Part.DISK: (
        "The database's disk is full",
        "Make room where PostgreSQL keeps its data, or give it a larger disk. Nothing half-written is left.",
    ),
}


SERVER = "Check DATABASE_URL and the server. Work goes on by itself once it answers."


class Finding(NamedTuple):
    """One thing that was looked at."""

    good: bool
    what: str
    mend: str = ""


@click.command()
@click.pass_context
def doctor(context: click.Context) -> None:
    """Say what is set up, what is up, what is wrong, and how to mend it. Exit status 1 when something is wrong."""
    settings = load()
    findings = list(_settings(settings))
    for finding in findings:
        _show(finding)
    sick = False
    for finding in _installation(settings):
        _show(finding)
        sick = sick or not finding.good
    context.exit(SICK if sick else 0)


def _show(finding: Finding) -> None:
    click.echo(f"{'ok  ' if finding.good else 'BAD '} {finding.what}")
    if finding.mend:
        click.echo(f"     -> {finding.mend}")


def _settings(settings: Settings) -> Iterator[Finding]:
    for name, field in VARIABLES.items():
        value = getattr(settings, field)
        if os.environ.get(name):
            secret = "Secret" in str(Settings.model_fields[field].annotation)
            yield Finding(True, f"{name} is set{'' if secret else f': {without_credentials(str(value))}'}")
    yield Finding(True, f"Home: {settings.home}")
    yield Finding(True, "API: the sandbox (no ANTHROPIC_API_KEY)" if settings.sandbox else "API: a key is set")


def _installation(settings: Settings) -> Iterator[Finding]:
    try:
        if settings.embedded and local.running(settings.home) is None:
            yield Finding(False, "The embedded services are not up.", "Start everything with `batchdesk up`.")
            return
        app = create_app(settings)
    except (BatchdeskError, LocalServicesError) as error:
        yield Finding(False, str(error))
        return
    with app.app_context():
        try:
            yield from _database(app)
        finally:
            db.db.engine.dispose()


def _database(app: Flask) -> Iterator[Finding]:
    try:
        current, head = schema_versions(app)
    except Exception as error:  # noqa: BLE001 - whatever the driver says is what is wrong
        words = str(error).splitlines()[0]
        embedded = current_app.extensions["batchdesk"].settings.embedded
        mend = "It is started again by itself: see log/postgresql.log in the home." if embedded else SERVER
        yield Finding(False, f"The database does not answer: {words}", mend)
        yield _queue()
        yield _api()
        return
    if current != head:
        yield Finding(False, f"The database is at version {current}, the code at {head}.", "Run `batchdesk migrate`.")
        return
    yield Finding(True, f"Database: version {current}")
    yield _queue()
    yield from _processes()
    yield _api()
    yield from _plugins()
    yield from _steps()
    yield from _alarms()
    yield _payloads()
    for fault in auditing.faults():
        yield Finding(False, fault, "Rows and tallies disagree: keep the database as it is and report this.")


def _queue() -> Finding:
    words = jobs.queue_trouble()
    if words is None:
        return Finding(True, "Queue: answers")
    mend = "Check REDIS_URL, the server and its memory. No data is lost: work goes on by itself once it is back."
    return Finding(False, f"The queue takes nothing: {words}", mend)


def _processes() -> Iterator[Finding]:
    with db.transaction() as tx:
        up = queries.processes_up(tx)
    for role, start in (("worker", "python worker.py work"), ("clock", "python worker.py clock")):
        count = up[role]
        yield Finding(bool(count), f"{role}s up: {count}", "" if count else f"Start one: `{start}`, or `batchdesk up`.")


def _api() -> Finding:
    try:
        identity = current_app.extensions["batchdesk"].gateway.identify()
    except BatchdeskError as error:
        return Finding(False, f"The API does not answer: {error}", "Check ANTHROPIC_API_KEY and ANTHROPIC_BASE_URL.")
    where = "the sandbox" if identity.base_url == services.SANDBOX_NAME else identity.base_url
    return Finding(True, f"API: {where}, organization {identity.organization_id}, workspace {identity.workspace_id}")


def _plugins() -> Iterator[Finding]:
    registry = current_app.extensions["batchdesk"].registry
    yield Finding(True, f"Tasks: {', '.join(sorted(registry.tasks)) or 'none'}")
    for problem in registry.problems:
        mend = "`batchdesk plugins check` shows where."
        yield Finding(False, f"Plugin {problem.plugin} was left out: {problem.error}", mend)
    with db.transaction() as tx:
        now = overview.agreement(tx)
    for name in now.behind:
        what = f"{name} has not taken up the present set of plugins."
        yield Finding(False, what, "It does so within seconds; else see whether it is up, and its log.")
    for one in now.processes:
        for told in one.plugin_problems or ():
            yield Finding(False, f"{one.name}: {told['error']}", "Mend that where it runs, and start it again.")


def _steps() -> Iterator[Finding]:
    with db.transaction() as tx:
        broken = db.rows(tx, "SELECT step, target_id, failures, error FROM steps WHERE error IS NOT NULL ORDER BY 1, 2")
        paused = db.rows(tx, "SELECT id, reason FROM runs WHERE state = 'paused' ORDER BY id")
        down = outages.told(tx)
    for part in down:
        what, mend = OUTAGES[Part(part.part)]
        yield Finding(False, f"{what.format(times=part.times)}, since {part.since:%H:%M} UTC: {part.words}", mend)
    for line in broken:
        what = f"Step {line.step} of {line.target_id} failed {line.failures} times: {line.error}"
        yield Finding(False, what, "It is tried again by itself.")
    for run in paused:
        yield Finding(
            False, f"Run {run.id} is paused: {run.reason}", "Resume it from the dashboard once that is mended."
        )


def _payloads() -> Finding:
    days = current_app.extensions["batchdesk"].settings.keep_payloads
    with db.transaction() as tx:
        found = retention.stored(tx, days)
    what = f"Payloads: {found.size / 1e6:,.0f} MB in the database"
    if found.dropped:
        what += f", those of {_plural(found.dropped, 'run')} dropped"
    which = f"{_plural(found.runs, 'run')} with {_plural(found.requests, 'request')}"
    if not days:
        words = f"kept for ever; {which} are over, whose payloads BATCHDESK_KEEP_PAYLOADS could drop"
        return Finding(True, f"{what}, {words}")
    return Finding(True, f"{what}, kept for {days} days after a run is over; next go those of {which}")


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _alarms() -> Iterator[Finding]:
    with db.transaction() as tx:
        found = alarms.alarms(tx)
    for alarm in found:
        yield Finding(False, f"{alarm.about}: {alarm.words}", alarm.mend)
