"""Makes batches and their requests of the items that wait for one.
Planning calls it for first attempts, resubmission for later ones; it goes on where an earlier call was killed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

from sqlalchemy import Connection

from webapp import db
from webapp.batches import encoding, leaving, naming
from webapp.batches.books import tally
from webapp.batches.cutting import RECENT, Lead, Shard, cut
from webapp.batches.steps import Lease, StepName, due
from webapp.settings import Settings

PAGE = 5000

# Items of the run that are pending without a request of their present attempt, in input order. A scalar where
# NOT EXISTS would do: that becomes a join, and a planner that takes a table just filled for an empty one then reads all
# of it for each item.
WAITING = """
    i.run_id = :run AND i.position > :after AND i.state = 'pending'
    AND (SELECT r.id FROM requests r WHERE r.item_id = i.id AND r.attempt = i.attempts) IS NULL
"""


def cut_pending(
    settings: Settings,
    lease: Lease,
    run_id: int,
    *,
    resubmission_id: int | None = None,
    leading: Sequence[Lead] = (),
) -> int:
    """Cut every waiting item of a run into batches, each committed with its submit step; the count of batches.

    :param resubmission_id: the wish of a person that made them wait, if one did.
    :param leading: the first of them that go ahead of the others.
    """
    with db.transaction() as tx:
        totals = [
            total
            for (total,) in db.rows(
                tx,
                "SELECT total FROM batches WHERE run_id = :run ORDER BY ordinal DESC LIMIT :recent",
                run=run_id,
                recent=RECENT,
            )
        ]
    positions: list[int] = []
    shards = cut(
        _sizes(run_id, positions),
        max_requests=settings.batch_max_requests,
        max_bytes=settings.batch_max_bytes,
        totals=totals[::-1],
        leading=leading,
    )
    count = 0
    for shard in shards:
        taken = positions[: shard.count]
        del positions[: shard.count]
        with db.transaction(by_key=True) as tx:
            lease.progress(tx)
            _commit(tx, run_id, shard, taken, resubmission_id)
        count += 1
        leaving.look()
    return count


def _sizes(run_id: int, positions: list[int]) -> Iterator[int]:
    """Bytes of each waiting item's request line, in order; notes the positions it has handed out."""
    with db.transaction() as tx:
        shared = db.scalar(tx, "SELECT octet_length(shared::text) FROM runs WHERE id = :run", run=run_id)
    token = "0" * naming.TOKEN_LENGTH  # each batch will draw its own
    for position, subject_id, attempts, own_bytes in _waiting(run_id):
        positions.append(position)
        identifier = encoding.custom_id(subject_id, token, attempts)
        yield encoding.line_bytes(len(identifier), shared, own_bytes)


def _waiting(run_id: int) -> Iterator[tuple[int, int, int, int]]:
    after = -1
    while True:
        with db.transaction(by_key=True) as tx:
            page = db.rows(
                tx,
                f"SELECT i.position, i.subject_id, i.attempts, i.size FROM items i WHERE {WAITING} "  # noqa: S608
                "ORDER BY i.position LIMIT :page",
                run=run_id,
                after=after,
                page=PAGE,
            )
        yield from (tuple(line) for line in page)
        if len(page) < PAGE:
            return
        after = page[-1].position


def _commit(tx: Connection, run_id: int, shard: Shard, positions: list[int], resubmission_id: int | None) -> None:
    """One batch, its requests, their tally and its submit step."""
    batch_id = db.scalar(
        tx,
        f"""
        INSERT INTO batches (run_id, ordinal, total, body_bytes, role, place, resubmission_id)
        SELECT :run, coalesce(max(ordinal), 0) + 1, :total, :body_bytes, CAST(:role AS text), {naming.PLACE},
               CAST(:resubmission AS bigint)
        FROM batches
        WHERE run_id = :run RETURNING id
        """,  # noqa: S608 - PLACE is a constant
        run=run_id,
        total=shard.count,
        body_bytes=shard.body_bytes,
        role=shard.role,
        resubmission=resubmission_id,
    )
    made = db.row(
        tx,
        f"""
        WITH made AS (
            INSERT INTO requests (batch_id, item_id, attempt, custom_id)
            SELECT :batch, i.id, i.attempts, i.subject_id || '-' || :token || '-' || i.attempts FROM items i
            WHERE {WAITING} AND i.position <= :last ORDER BY i.position RETURNING id
        ) SELECT count(*) AS count, min(id) AS first, max(id) AS last FROM made
        """,  # noqa: S608 - WAITING is a constant
        batch=batch_id,
        run=run_id,
        token=naming.new_token(),
        after=positions[0] - 1,
        last=positions[-1],
    )
    if made.count != shard.count:
        raise AssertionError(f"batch {batch_id}: {made.count} requests were made where {shard.count} were cut")
    db.run(
        tx,
        "UPDATE batches SET first_request_id = :first, last_request_id = :last WHERE id = :batch",
        first=made.first,
        last=made.last,
        batch=batch_id,
    )
    tally(tx, "requests", Counter(pending=made.count), batch_id=batch_id)
    due(tx, StepName.SUBMIT, batch_id)


def split(tx: Connection, batch_id: int) -> list[int]:
    """Cut a batch that the API finds too large in two, moving its requests; the ids of the new batches.

    The halves differ by two or more in their totals. The caller moves the old batch out of the way.
    """
    requests = db.rows(
        tx,
        "SELECT r.id, octet_length(r.custom_id) AS id_bytes, i.size, octet_length(run.shared::text) AS shared "
        "FROM requests r JOIN items i ON i.id = r.item_id JOIN runs run ON run.id = i.run_id "
        "WHERE r.batch_id = :batch ORDER BY r.id",
        batch=batch_id,
    )
    half = len(requests) // 2
    if len(requests) % 2 == 0 and half > 1:
        half -= 1
    lines = iter(requests)
    made = []
    for count in (half, len(requests) - half):
        part = list(islice(lines, count))
        sizes = (encoding.line_bytes(r.id_bytes, r.shared, r.size) for r in part)
        (shard,) = cut(sizes, max_requests=count, max_bytes=1 << 62)
        made.append(_moved(tx, batch_id, shard, part[0].id, part[-1].id))
    return made


def _moved(tx: Connection, batch_id: int, shard: Shard, first: int, last: int) -> int:
    new_id: int = db.scalar(
        tx,
        """
        INSERT INTO batches (
            run_id, ordinal, total, body_bytes, role, place, resubmission_id, first_request_id, last_request_id
        )
        SELECT old.run_id, (SELECT max(ordinal) + 1 FROM batches WHERE run_id = old.run_id), :total, :body_bytes,
               old.role, old.place, old.resubmission_id, :first, :last
        FROM batches old WHERE old.id = :batch RETURNING id
        """,
        batch=batch_id,
        total=shard.count,
        body_bytes=shard.body_bytes,
        first=first,
        last=last,
    )
    db.run(
        tx,
        "UPDATE requests SET batch_id = :new WHERE batch_id = :old AND id BETWEEN :first AND :last",
        new=new_id,
        old=batch_id,
        first=first,
        last=last,
    )
    tally(tx, "requests", Counter(pending=shard.count), batch_id=new_id)
    tally(tx, "requests", Counter(pending=-shard.count), batch_id=batch_id)
    due(tx, StepName.SUBMIT, new_id)
    return new_id
