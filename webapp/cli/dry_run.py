"""`batchdesk run --dry-run`: everything up to the point where something would be stored or sent.
Needs no service: records are read, requests are built and cut in memory, one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import click
from pydantic import BaseModel

from webapp.batches import encoding, runs
from webapp.batches.building import NO_ID, NO_TOKEN, Mould, own_parts, shared_part
from webapp.batches.cutting import cut
from webapp.batches.importing import Sieve
from webapp.cli.app import BAD_USAGE, FAILURES, OK
from webapp.db import utcnow
from webapp.hooks import Registry, Task
from webapp.money.prices import SHIPPED
from webapp.records.reading import Problem, Record, problems_report
from webapp.settings import load

SHOWN = 2000  # characters of the first request
CHUNK = 200  # records that are built in one go


class Row(NamedTuple):
    """A record as planning reads it from the tables."""

    position: int
    kind: str
    key: str
    data: str | bytes
    image: str | None
    media_type: str | None
    width: int | None
    height: int | None
    size: int

    @classmethod
    def of(cls, record: Record) -> Row:
        plain = record.position, record.kind, record.key, record.data
        found = record.image
        if found is None:
            return cls(*plain, None, None, None, None, 0)
        return cls(*plain, found.sha256.hex(), found.media_type, found.width, found.height, len(found.content))


class Rehearsal:
    """Builds each request as planning would, and keeps the first and what would fail."""

    def __init__(self, task: Task[Any], settings: BaseModel, text_field: str) -> None:
        self._mould = Mould.of(
            task,
            settings,
            shared_part(task, settings, NO_TOKEN),
            token=NO_TOKEN,
            text_field=text_field,
            max_bytes=load().batch_max_bytes,
        )
        self.model = str(self._mould.shared_params["model"])
        self.first: bytes | None = None
        self.count = 0
        self.failed: list[str] = []

    def sizes(self, records: Iterable[Record]) -> Iterator[int]:
        """Bytes of each request line that would be sent."""
        rows = map(self._row, records)
        shared = self._mould.shared.encode()
        while chunk := list(islice(rows, CHUNK)):
            for row, own in own_parts(self._mould, chunk):
                if own.text is None:
                    self.failed.append(f"{row.key}: {own.fault}")
                    continue
                if self.first is None:
                    self.first = encoding.join_line(NO_ID, shared, own.text.encode())
                identifier = encoding.custom_id(row.position + 1, NO_TOKEN, 1)
                yield encoding.line_bytes(len(identifier), len(shared), own.size)

    def _row(self, record: Record) -> Row:
        self.count += 1
        runs.check_kind(self._mould.task, record.kind)
        return Row.of(record)


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
    # There may be no database yet, and so no price that an admin gave.
    if not SHIPPED.priced(rehearsal.model, utcnow()):
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
