"""What a run is likely to cost, worked out of its own requests before anything is sent, and kept with it.
The step `plan` does it once the requests are built; previews ask for what was answered before. See `money.prediction`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import JSON, Connection, Integer
from sqlalchemy.orm import Mapped, mapped_column

from webapp import db
from webapp.batches import counting
from webapp.batches.counting import Counts, Piece
from webapp.batches.desk import Desk
from webapp.batches.models import moment
from webapp.batches.steps import Lease
from webapp.db import Base
from webapp.money import overrides, priming
from webapp.money.guesses import tokens_of_image
from webapp.money.prediction import Forecast, History, Work, forecast
from webapp.money.prices import DATED, SHIPPED
from webapp.money.priming import Prime
from webapp.records import jsontext
from webapp.records.escapes import storable

LOOKED_AT = 50  # latest runs of a task that are searched for answers of the same model
USED = 10  # of them, those whose answers are gone by
WARM_MINUTES = {"1h": 55, "5m": 4}  # since a batch with the same shared part ended


class RunEstimate(Base):
    """What a run was likely to cost when its requests were built, in USD. NULL: its model had no known price."""

    __tablename__ = "run_estimates"

    run_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    model: Mapped[str]
    requests: Mapped[int] = mapped_column(Integer)
    size: Mapped[int]  # bytes of all their lines
    low_usd: Mapped[Decimal | None]
    likely_usd: Mapped[Decimal | None]
    high_usd: Mapped[Decimal | None]
    most_usd: Mapped[Decimal | None]
    counted: Mapped[int] = mapped_column(Integer)  # requests whose tokens the API counted
    reasons: Mapped[Any] = mapped_column(JSON)  # sentences
    made_at: Mapped[datetime] = moment(now=True)


@dataclass(frozen=True, slots=True)
class Stored:
    """A run's estimate as it is kept."""

    low_usd: Decimal | None
    likely_usd: Decimal | None
    high_usd: Decimal | None
    most_usd: Decimal | None
    reasons: list[str]
    made_at: datetime


def stored(tx: Connection, run_id: int) -> Stored | None:
    """What was estimated of a run; None: it was planned before estimates were made, or is being planned."""
    found = db.row(
        tx,
        "SELECT low_usd, likely_usd, high_usd, most_usd, reasons, made_at FROM run_estimates WHERE run_id = :id",
        id=run_id,
    )
    return None if found is None else Stored(*found)


def estimate(desk: Desk, lease: Lease) -> None:
    """Work out what a run whose requests are all built will cost, and keep it. May be repeated: the first stays."""
    run_id = lease.target_id
    with db.transaction() as tx:
        if db.scalar(tx, "SELECT 1 FROM run_estimates WHERE run_id = :id", id=run_id):
            return
        run = _measured(tx, run_id)
        pieces = _pieces(tx, run)
    shared = jsontext.loads(run.shared)
    counts = Counts()
    if pieces:
        counts = counting.counted(counting.within(lambda: desk.gateway, counting.STEP_SECONDS), shared, pieces)
    with db.transaction() as tx:
        lease.hold(tx)
        work = _work(
            tx,
            Measured(
                task=run.task,
                shared=run.shared,
                settings_hash=run.settings_hash,
                requests=run.requests,
                batches=-(-run.requests // desk.settings.batch_max_requests),
                own_bytes=Decimal(run.bytes - run.image_bytes),
                image_tokens=Decimal(run.image_tokens),
                run_id=run_id,
                prime=Prime(run.prime or Prime.AUTO),
                pilot=run.pilot,
            ),
            counts,
            run.today,
        )
        _keep(tx, run, forecast(work))
        if work.primed:
            db.run(tx, "UPDATE runs SET priming = :words WHERE id = :id", words=work.priming, id=run_id)


@dataclass(frozen=True, slots=True)
class Measured:
    """Requests that are to be sent, measured or estimated from some.

    :param shared: the encoded part that all have.
    :param own_bytes: of all, without images; see `Work`.
    :param run_id: that they are of, if there is one.
    :param prime: what is wanted of the request that goes ahead.
    :param pilot: how many go before the rest is released; that comes too late for what was written before them.
    """

    task: str
    shared: str
    settings_hash: str | None
    requests: int
    batches: int
    own_bytes: Decimal
    image_tokens: Decimal
    size_error: Decimal = Decimal()
    run_id: int | None = None
    prime: Prime = Prime.AUTO
    pilot: int | None = None


def of_pieces(
    pieces: Sequence[Piece],
    *,
    task: str,
    shared: str,
    settings_hash: str | None,
    requests: int,
    whole: bool,
    in_a_batch: int,
) -> Measured:
    """So many requests as if all were like those that were looked at.

    :param whole: those are all there are.
    """
    many = max(1, len(pieces))
    size = Decimal(sum(one.size for one in pieces)) / many
    images = Decimal(sum(one.image_tokens for one in pieces)) / many
    error = Decimal()
    if not whole and size:
        error = Decimal(sum((one.size - size) ** 2 for one in pieces)).sqrt() / many / (size + len(shared.encode()))
    return Measured(
        task=task,
        shared=shared,
        settings_hash=settings_hash,
        requests=requests,
        batches=-(-requests // in_a_batch),
        own_bytes=size * requests,
        image_tokens=images * requests,
        size_error=error,
    )


def foretell(tx: Connection | None, found: Measured, counts: Counts, today: datetime) -> Forecast:
    """The range of what requests will cost.

    :param tx: None where there is no database to ask what was answered before.
    """
    return forecast(_work(tx, found, counts, today))


def _work(tx: Connection | None, found: Measured, counts: Counts, today: datetime) -> Work:
    """All that is known of the requests, with whether one of them goes ahead."""
    shared = jsontext.loads(found.shared)
    model = str(shared.get("model"))
    prices = SHIPPED if tx is None else overrides.book(tx)
    work = Work(
        model=model,
        price=lambda usage: prices.cost(model, usage, today),
        requests=found.requests,
        batches=found.batches,
        shared=shared,
        own_bytes=found.own_bytes,
        image_tokens=found.image_tokens,
        size_error=found.size_error,
        sample=counts.sample,
        shared_tokens=counts.shared_tokens,
        uncounted=counts.trouble,
        history=None if tx is None else _history(tx, found, model),
    )
    together = work
    if found.pilot and found.pilot < found.requests:
        together = replace(work, requests=found.pilot, batches=-(-found.pilot * found.batches // found.requests))
    decision = priming.decide(together, found.prime)
    return replace(work, primed=decision.primed, priming=decision.words)


def _measured(tx: Connection, run_id: int) -> Any:
    """A run with its requests' number, bytes and images, all of them."""
    run = db.row(
        tx,
        "SELECT id, task, token, settings_hash, shared::text AS shared, shared->>'model' AS model, prime, pilot, "
        "now() AS today "
        "FROM runs WHERE id = :id",
        id=run_id,
    )
    items = db.row(
        tx,
        "SELECT count(*) AS requests, coalesce(sum(size), 0) AS bytes FROM items WHERE run_id = :id "
        "AND state = 'pending'",
        id=run_id,
    )
    sizes = db.rows(
        tx,
        "SELECT b.width, b.height, count(*) AS images, sum(4 * ((b.size + 2) / 3)) AS bytes FROM items i "
        "JOIN subjects s ON s.id = i.subject_id JOIN blobs b ON b.sha256 = s.image "
        "WHERE i.run_id = :id AND i.state = 'pending' GROUP BY b.width, b.height",
        id=run_id,
    )
    return _Run(
        **run._mapping,
        requests=items.requests,
        bytes=int(items.bytes),
        image_bytes=int(sum(one.bytes for one in sizes)),
        image_tokens=sum(one.images * tokens_of_image(one.width or 0, one.height or 0, run.model) for one in sizes),
    )


@dataclass(slots=True)
class _Run:
    id: int
    task: str
    token: str
    settings_hash: str | None
    shared: str
    model: str
    prime: str | None
    pilot: int | None
    today: datetime
    requests: int
    bytes: int
    image_bytes: int
    image_tokens: int


def _pieces(tx: Connection, run: _Run) -> list[Piece]:
    """Some requests of a run, from short to long ones; sets right how many of its images are in its requests."""
    rows = db.rows(
        tx,
        "SELECT i.size AS sent, p.own::text AS own, encode(s.image, 'hex') AS image, b.width, b.height, b.size FROM ("
        "SELECT id, subject_id, size, row_number() OVER (ORDER BY size, id) - 1 AS nth FROM items "
        "WHERE run_id = :id AND state = 'pending') AS i "
        "JOIN item_params p ON p.item_id = i.id JOIN subjects s ON s.id = i.subject_id "
        "LEFT JOIN blobs b ON b.sha256 = s.image WHERE i.nth = ANY(CAST(:ranks AS int[])) ORDER BY i.nth",
        id=run.id,
        ranks=db.array(counting.ranks(run.requests)),
    )
    pieces = [counting.piece(row, row.own, row.sent, token=run.token, model=run.model) for row in rows]
    pictures = [row for row in rows if row.image is not None]
    if pictures:
        # A task may leave its record's image out, or send it twice.
        expected = sum(tokens_of_image(row.width or 0, row.height or 0, run.model) for row in pictures)
        sent = sum(one.image_tokens for one in pieces) / expected
        run.image_tokens, run.image_bytes = round(run.image_tokens * sent), round(run.image_bytes * sent)
    return pieces


def _keep(tx: Connection, run: _Run, found: Forecast) -> None:
    db.run(
        tx,
        "INSERT INTO run_estimates (run_id, model, requests, size, low_usd, likely_usd, high_usd, most_usd, counted, "
        "reasons) VALUES (:run, :model, :requests, :size, :low, :likely, :high, :most, :counted, "
        "CAST(:reasons AS json)) ON CONFLICT DO NOTHING",
        run=run.id,
        model=run.model,
        requests=run.requests,
        size=counting.line_bytes(len(run.shared.encode()), run.bytes, run.requests),
        low=found.low_usd,
        likely=found.likely_usd,
        high=found.high_usd,
        most=found.most_usd,
        counted=found.counted,
        reasons=jsontext.dumps([storable(words) for words in found.reasons]).decode(),
    )


def _history(tx: Connection, found: Measured, model: str) -> History | None:
    """What this model has answered to this task, with these settings if it has to any."""
    runs = db.rows(
        tx,
        "SELECT r.alike, l.lines, l.output, l.read, l.written FROM ("
        "SELECT id, coalesce(settings_hash = :hash, false) AS alike FROM runs WHERE task = :task "
        "AND id IS DISTINCT FROM CAST(:id AS bigint) ORDER BY id DESC LIMIT :looked) AS r CROSS JOIN LATERAL ("
        "SELECT sum(lines) AS lines, sum(output_tokens) AS output, sum(read_tokens) AS read, "
        "sum(write_5m_tokens + write_1h_tokens) AS written FROM ledger_tallies "
        "WHERE run_id = r.id AND regexp_replace(model, '-\\d{8}$', '') = :model) AS l "
        "WHERE l.lines > 0 ORDER BY r.id DESC",
        hash=found.settings_hash,
        task=found.task,
        id=found.run_id,
        model=DATED.sub("", model),
        looked=LOOKED_AT,
    )
    alike = any(run.alike for run in runs)
    used = [run for run in runs if run.alike or not alike][:USED]
    if not used:
        return None
    answers, output = (int(sum(getattr(run, name) for run in used)) for name in ("lines", "output"))
    means = [run.output / run.lines for run in used]
    return History(
        answers=answers,
        output=Decimal(output) / answers,
        least=min(means),
        most=max(means),
        read=int(sum(run.read for run in used)),
        written=int(sum(run.written for run in used)),
        runs=len(used),
        alike=alike,
        warm=_warm(tx, found),
    )


def _warm(tx: Connection, found: Measured) -> bool:
    """Whether the same shared part was at the API so lately that it may be cached there still."""
    ttl = "1h" if '"ttl":"1h"' in found.shared else "5m"
    return bool(
        db.scalar(
            tx,
            "SELECT EXISTS (SELECT 1 FROM (SELECT id FROM runs WHERE task = :task AND id IS DISTINCT FROM "
            "CAST(:id AS bigint) AND shared::text = :shared ORDER BY id DESC LIMIT :looked) AS r "
            "JOIN batches b ON b.run_id = r.id WHERE b.api_ended_at > now() - make_interval(mins => :minutes))",
            task=found.task,
            id=found.run_id,
            shared=found.shared,
            looked=LOOKED_AT,
            minutes=WARM_MINUTES[ttl],
        )
    )
