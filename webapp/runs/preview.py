"""What a run would send, before there is a run: some of its requests as they would be, and how many batches, how large.
Pages ask for it; nothing is stored or sent. Requests are built by the code that planning uses.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from threading import Lock
from typing import Any

from pydantic import BaseModel

from webapp import db
from webapp.batches import counting, encoding
from webapp.batches.building import NO_ID, NO_TOKEN, Mould, Own, own_parts, shared_part
from webapp.batches.counting import Count, Counts
from webapp.batches.cutting import cut
from webapp.errors import NotFound
from webapp.hooks import Task
from webapp.money import estimating, overrides
from webapp.money.prediction import Forecast
from webapp.runs.selections import IN_REVISION
from webapp.runs.staleness import Extent, Over, extent, fingerprint
from webapp.settings import Settings

SHOWN = 3
BUILT = 200  # subjects whose requests are measured
BUILT_BYTES = 8_000_000  # of their records
SECONDS = 15.0  # of plugin code

# Plugin code runs in a child of this process: of one page at a time.
_one_at_a_time = Lock()


@dataclass(frozen=True, slots=True)
class Shown:
    """One subject's request as it would be sent, or why it would not.

    :param line: JSON text; images stand in it as a note of their size.
    """

    key: str
    place: int
    line: str | None
    size: int
    fault: str | None


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run would be.

    :param requests: how many subjects it is over; an estimate unless `counted`.
    :param batches: and `size`, their bytes: estimates unless `measured`, which is when every request was built.
    :param built: how many requests were built, of which `unsendable` have a fault.
    :param priced: whether it is known what the model costs.
    :param forecast: what it is likely to cost.
    """

    model: str
    priced: bool
    requests: int
    counted: bool
    batches: int
    size: int
    measured: bool
    built: int
    unsendable: int
    shown: list[Shown]
    forecast: Forecast


def preview(
    limits: Settings,
    dataset_id: int,
    task: Task[Any],
    settings: BaseModel,
    over: Over,
    key: str | None = None,
    *,
    count: Count,
) -> Preview:
    """What a run of a task over a dataset would send. The caller has no transaction open.

    :param count: asks the API for tokens.
    :param key: of a subject to show, whether or not the run is over it; else the first, the middle and the last.
    :raises NotFound: no such dataset, or no such key in it.
    :raises PluginError: the task cannot make the part that all requests have; says why.
    """
    with _one_at_a_time:
        shared = shared_part(task, settings, NO_TOKEN)
        with db.transaction() as tx:
            text_field = db.scalar(tx, "SELECT text_field FROM datasets WHERE id = :id", id=dataset_id)
            today = db.scalar(tx, "SELECT now()")
            prices = overrides.book(tx)
            found = extent(tx, dataset_id, over, task, settings)
            wanted = [_place_of(tx, dataset_id, key)] if key else _spread(found.positions, SHOWN)
            more = [position for position in _spread(found.positions, BUILT) if position not in wanted]
            rows = _rows(tx, dataset_id, wanted) + _rows(tx, dataset_id, _light(tx, dataset_id, more))
        mould = Mould.of(
            task, settings, shared, token=NO_TOKEN, text_field=text_field, max_bytes=limits.batch_max_bytes
        )
        made = _made(mould, rows)
    within = [(row, own) for row, own in made if row.position in found.positions]
    model = str(mould.shared_params["model"])
    return Preview(
        model=model,
        priced=prices.priced(model, today),
        requests=found.count,
        counted=found.exact,
        built=len(made),
        unsendable=sum(own.fault is not None for _, own in made),
        shown=[_shown(mould, row, own) for row, own in made[: len(wanted)]],
        forecast=_foretold(limits, mould, found, within, count, today),
        **_batches(limits, mould, found, within),
    )


def _foretold(
    limits: Settings, mould: Mould, found: Extent, made: list[tuple[Any, Own]], count: Count, today: datetime
) -> Forecast:
    """What all of it is likely to cost, by those that were built; some of them are counted by the API."""
    model = str(mould.shared_params["model"])
    pieces = [
        counting.piece(row, own.text, own.size, token=NO_TOKEN, model=model)
        for row, own in made
        if own.text is not None
    ]
    measured = estimating.of_pieces(
        pieces,
        task=mould.task.name,
        shared=mould.shared,
        settings_hash=fingerprint(mould.task.name, mould.task.version, mould.settings),
        requests=round(found.count * len(pieces) / len(made)) if made else 0,
        whole=len(made) == len(found.positions) and found.exact,
        in_a_batch=limits.batch_max_requests,
    )
    counts = counting.counted(count, mould.shared_params, pieces) if pieces else Counts()
    with db.transaction() as tx:
        return estimating.foretell(tx, measured, counts, today)


def _place_of(tx: Any, dataset_id: int, key: str) -> int:
    position = db.scalar(
        tx,
        "SELECT s.position FROM subjects s JOIN datasets d ON d.id = s.dataset_id WHERE d.id = :id AND s.key = :key "  # noqa: S608 - a constant
        f"AND {IN_REVISION.replace(':revision', 'd.revision')}",
        id=dataset_id,
        key=key,
    )
    if position is None:
        raise NotFound(f"No record of this dataset has the key “{key}”.")
    return int(position)


def _spread(positions: Sequence[int], count: int) -> list[int]:
    """So many of some positions, evenly, with the first and the last."""
    if len(positions) <= count:
        return list(positions)
    return [positions[round(n * (len(positions) - 1) / (count - 1))] for n in range(count)]


def _light(tx: Any, dataset_id: int, positions: list[int]) -> list[int]:
    """As many of these as may be read at once."""
    found = db.rows(
        tx,
        "SELECT position FROM (SELECT position, sum(size) OVER (ORDER BY position) AS upto FROM subjects "
        "WHERE dataset_id = :id AND position = ANY(CAST(:positions AS int[]))) AS sized WHERE upto <= :most",
        id=dataset_id,
        positions=db.array(positions),
        most=BUILT_BYTES,
    )
    return [position for (position,) in found]


def _rows(tx: Any, dataset_id: int, positions: list[int]) -> list[Any]:
    """Subjects as planning reads them, in their order."""
    return list(
        db.rows(
            tx,
            "SELECT s.id, s.position, s.kind, s.key, s.data::text AS data, encode(s.image, 'hex') AS image, "
            "b.media_type, b.width, b.height, b.size FROM subjects s LEFT JOIN blobs b ON b.sha256 = s.image "
            "WHERE s.dataset_id = :id AND s.position = ANY(CAST(:positions AS int[])) ORDER BY s.position",
            id=dataset_id,
            positions=db.array(positions),
        )
    )


def _made(mould: Mould, rows: list[Any]) -> list[tuple[Any, Own]]:
    """As many as can be built in the time there is, those that are shown first."""
    made = []
    end = time.monotonic() + SECONDS
    for row, own in own_parts(mould, rows):
        made.append((row, own))
        if time.monotonic() > end:
            break
    return made


def _shown(mould: Mould, row: Any, own: Own) -> Shown:
    if own.text is None:
        return Shown(row.key, row.position + 1, None, 0, own.fault)
    note = f"({row.media_type}, {row.size or 0:,} bytes, as base64)".encode()
    text = encoding.mark_pattern(NO_TOKEN).sub(lambda _: note, own.text.encode())
    line = encoding.join_line(NO_ID, mould.shared.encode(), text)
    return Shown(row.key, row.position + 1, line.decode(), _line_bytes(mould, row, own), None)


def _line_bytes(mould: Mould, row: Any, own: Own) -> int:
    return encoding.line_bytes(len(encoding.custom_id(row.id, NO_TOKEN, 1)), mould.shared_bytes, own.size)


def _batches(limits: Settings, mould: Mould, found: Extent, made: list[tuple[Any, Own]]) -> dict[str, Any]:
    """How many batches, and their bytes: exact where every request was built, else as if all were like those."""
    sizes = [_line_bytes(mould, row, own) for row, own in made if own.fault is None]
    if len(made) == len(found.positions) and found.exact:
        shards = list(cut(sizes, max_requests=limits.batch_max_requests, max_bytes=limits.batch_max_bytes))
        return {"batches": len(shards), "size": sum(shard.body_bytes for shard in shards), "measured": True}
    if not sizes:
        return {"batches": 0, "size": 0, "measured": False}
    sendable = round(found.count * len(sizes) / len(made))
    each = sum(sizes) / len(sizes) + 1
    in_one = max(1, min(limits.batch_max_requests, int(limits.batch_max_bytes // each)))
    return {"batches": ceil(sendable / in_one), "size": round(sendable * each), "measured": False}
