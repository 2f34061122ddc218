"""`batchdesk run --dry-run`: everything up to the point where something would be stored or sent.
Needs no service but, where a key is set, the API, which counts the tokens of a few requests: records are read, requests
are built and cut in memory, one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import islice
from random import Random
from typing import Any, NamedTuple

import click
from pydantic import BaseModel

from webapp.batches import counting, encoding
from webapp.batches.building import NO_ID, NO_TOKEN, Mould, own_parts, shared_part
from webapp.batches.counting import Counts, Piece
from webapp.batches.cutting import cut
from webapp.cli.app import BAD_USAGE, FAILURES, OK
from webapp.datasets.importing import Sieve
from webapp.db import utcnow
from webapp.hooks import Registry, Task
from webapp.money.estimating import Measured, foretell
from webapp.money.exposure import usd
from webapp.money.prediction import Forecast
from webapp.money.prices import SHIPPED
from webapp.records.reading import Problem, Record, problems_report
from webapp.runs import verbs
from webapp.services import open_gateway
from webapp.settings import load

SHOWN = 2000  # characters of the first request
CHUNK = 200  # records that are built in one go
KEPT = 64  # requests of which some are counted


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
        self._own_bytes = self._image_tokens = 0
        self._kept: list[Piece] = []
        self._dice = Random(0)  # noqa: S311 - the same sample each time

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
                self._keep(counting.piece(row, own.text, own.size, token=NO_TOKEN, model=self.model))
                identifier = encoding.custom_id(row.position + 1, NO_TOKEN, 1)
                yield encoding.line_bytes(len(identifier), len(shared), own.size)

    def _keep(self, piece: Piece) -> None:
        """Add a request up, and keep it if the dice say so: some of all, each as likely as the others."""
        self._own_bytes += piece.size
        self._image_tokens += piece.image_tokens
        at = self._dice.randrange(self.count)
        if len(self._kept) < KEPT:
            self._kept.append(piece)
        elif at < KEPT:
            self._kept[at] = piece

    def forecast(self, requests: int, batches: int) -> Forecast:
        """What it is likely to cost. Without a database, nothing is known of what was answered before."""
        counts = Counts(trouble="the sandbox is asked for nothing in a dry run")
        settings = load()
        if self._kept and not settings.sandbox:
            count = counting.within(lambda: open_gateway(settings), counting.STEP_SECONDS)
            counts = counting.counted(count, self._mould.shared_params, self._kept)
        measured = Measured(
            task=self._mould.task.name,
            shared=self._mould.shared,
            settings_hash=None,
            requests=requests,
            batches=batches,
            own_bytes=Decimal(self._own_bytes),
            image_tokens=Decimal(self._image_tokens),
        )
        return foretell(None, measured, counts, utcnow())

    def _row(self, record: Record) -> Row:
        self.count += 1
        verbs.check_kind(self._mould.task, record.kind)
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
    forecast = rehearsal.forecast(rehearsal.count - len(rehearsal.failed), len(shards))
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
        f"{_told(forecast)}",
        err=True,
    )
    if as_json:
        click.echo(json.dumps(report | {"estimate": _as_json(forecast)}))
    elif rehearsal.first is not None:
        shown = rehearsal.first.decode()
        cut_off = f"… ({len(shown):,} characters in all)" if len(shown) > SHOWN else ""
        click.echo(f"The first request:\n{shown[:SHOWN]}{cut_off}")
    if sieve.count and not skip_bad:
        return BAD_USAGE
    return FAILURES if rehearsal.failed else OK


def _told(forecast: Forecast) -> str:
    """The estimate and what it is made of, in lines."""
    if forecast.low_usd is None or forecast.high_usd is None or forecast.most_usd is None:
        cost = "What it would cost is unpriced"
    else:
        cost = f"It would cost {usd(forecast.low_usd)} to {usd(forecast.high_usd)}, at the very most "
        cost += usd(forecast.most_usd)
    play = " (the sandbox answers: that is nobody's money)" if load().sandbox else ""
    sent = f"Nothing was stored, and nothing sent but {forecast.counted} requests to be counted, which is free."
    lines = [f"{cost}{play}.", *(f"  - {words}" for words in forecast.reasons)]
    return "\n".join([*lines, sent if forecast.counted else "Nothing was stored or sent."])


def _as_json(forecast: Forecast) -> dict[str, Any]:
    amounts = {
        name: None if (usd := getattr(forecast, name)) is None else float(usd)
        for name in ("low_usd", "likely_usd", "high_usd", "most_usd")
    }
    return {**amounts, "counted": forecast.counted, "sandbox": load().sandbox, "reasons": list(forecast.reasons)}
