"""`batchdesk run --dry-run`: everything up to the point where something would be stored or sent.
Needs no service: records are read, requests are built and cut in memory, one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import click
from pydantic import BaseModel

from webapp.batches import encoding, runs
from webapp.batches.cutting import cut
from webapp.batches.importing import Sieve
from webapp.cli.app import BAD_USAGE, FAILURES, OK
from webapp.db import utcnow
from webapp.errors import InputError, PluginError
from webapp.hooks import Image, Registry, Subject, Task, calls
from webapp.money.prices import Usage, cost
from webapp.records import jsontext
from webapp.records.reading import Problem, Record, problems_report
from webapp.settings import load

TOKEN = "0" * 16  # as long as a run's own
ANY_USAGE = Usage(input=1, write_5m=0, write_1h=0, read=0, output=1, web_searches=0, geo=None)
SHOWN = 2000  # characters of the first request


class Rehearsal:
    """Builds each request as planning would, and keeps the first and what would fail."""

    def __init__(self, task: Task[Any], settings: BaseModel, text_field: str) -> None:
        self._task = task
        self._settings = settings
        self._text_field = text_field
        self._params = calls.shared_params(task, settings)
        self.model = str(self._params["model"])
        self.shared = encoding.encode(self._params, TOKEN).encode()
        self.first: bytes | None = None
        self.count = 0
        self.failed: list[str] = []

    def sizes(self, records: Iterable[Record]) -> Iterator[int]:
        """Bytes of each request line that would be sent."""
        room = min(encoding.MAX_REQUEST_BYTES, encoding.room_for_one(load().batch_max_bytes))
        for record in records:
            self.count += 1
            runs.check_kind(self._task, record.kind)
            try:
                own, size = self._own(record)
            except (InputError, PluginError, TypeError, ValueError) as error:
                self.failed.append(f"{record.key}: {error}")
                continue
            if encoding.params_bytes(len(self.shared), size) > room:
                self.failed.append(f"{record.key}: the request is over {room:,} bytes once built.")
                continue
            if self.first is None:
                self.first = encoding.join_line(b"(made when planned)", self.shared, own)
            yield encoding.line_bytes(len(encoding.custom_id(record.position + 1, TOKEN, 1)), len(self.shared), size)

    def _own(self, record: Record) -> tuple[bytes, int]:
        data = jsontext.loads(record.data)
        text = data.get(self._text_field)
        found = record.image
        image = Image(found.sha256.hex(), found.media_type, found.width, found.height) if found else None
        subject = Subject(record.kind, record.key, data, image, text if isinstance(text, str) else None)
        own = encoding.encode(calls.request_params(self._task, subject, self._settings, self._params), TOKEN).encode()
        marks = encoding.mark_pattern(TOKEN)
        return own, encoding.sent_bytes(own, marks, lambda _: len(found.content) if found else 0)


def rehearse(
    registry: Registry,
    task: Task[Any],
    settings: BaseModel,
    found: Iterable[Record | Problem],
    *,
    text_field: str,
    skip_bad: bool,
    as_json: bool,
) -> int:
    """Say what a run would send; the exit status, which is that of the run if all that is sent succeeds.

    :param skip_bad: bad records are set aside; else they would stop the run.
    """
    rehearsal = Rehearsal(task, settings, text_field)
    limits = load()
    sieve = Sieve(lambda problem: None)
    shards = list(
        cut(
            rehearsal.sizes(sieve.records(found)),
            max_requests=limits.batch_max_requests,
            max_bytes=limits.batch_max_bytes,
        )
    )
    report = {
        "requests": rehearsal.count - len(rehearsal.failed),
        "not_sendable": len(rehearsal.failed),
        "bad_records": sieve.count,
        "batches": len(shards),
        "batch_totals": [shard.count for shard in shards],
        "bytes": sum(shard.body_bytes for shard in shards),
    }
    if sieve.count:
        click.echo(problems_report(sieve.first, sieve.count), err=True)
    for failed in rehearsal.failed[:20]:
        click.echo(f"Would not be sent: {failed}", err=True)
    if cost(rehearsal.model, ANY_USAGE, utcnow()) is None:
        click.echo(
            f"Model '{rehearsal.model}' is not in the price table: its answers would be unpriced; and if the API does "
            "not know it either, every request would fail.",
            err=True,
        )
    click.echo(
        f"{report['requests']:,} requests in {report['batches']:,} batches, {report['bytes']:,} bytes. "
        "Nothing was stored or sent.",
        err=True,
    )
    if as_json:
        click.echo(json.dumps(report))
    elif rehearsal.first is not None:
        shown = rehearsal.first.decode()
        cut_off = f"… ({len(shown):,} characters in all)" if len(shown) > SHOWN else ""
        click.echo(f"The first request:\n{shown[:SHOWN]}{cut_off}")
    if sieve.count and not skip_bad:
        return BAD_USAGE
    return FAILURES if rehearsal.failed else OK
