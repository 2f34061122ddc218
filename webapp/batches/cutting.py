"""How a run is cut into batches: by count and by bytes, the same way every time, neighbours of different totals.
Pure: planning and resubmission feed it sizes and get shards.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from webapp.batches.encoding import HEAD, TAIL
from webapp.batches.states import BatchRole

RECENT = 64  # how many earlier shards a total is kept apart from, where that costs little
SPARE = 20  # a shard gives up at most 1/SPARE of its requests to be different


@dataclass(frozen=True, slots=True)
class Lead:
    """So many of the next requests go ahead of the others, in batches of their own."""

    count: int
    role: BatchRole


@dataclass(frozen=True, slots=True)
class Shard:
    """One batch to be: how many of the next requests it takes, and the exact bytes of its body."""

    count: int
    body_bytes: int
    role: BatchRole | None = None


def cut(
    sizes: Iterable[int],
    *,
    max_requests: int,
    max_bytes: int,
    totals: Sequence[int] = (),
    leading: Sequence[Lead] = (),
) -> Iterator[Shard]:
    """Cut a sequence of request lines into shards, in order.

    Two POSTs of one total may not be in doubt at once (rule 3), so that a total alone tells shards apart; neighbours
    therefore differ: 10,000, 9,999, …

    :param sizes: bytes of each request line, none above `max_bytes` on its own.
    :param totals: totals of the shards that were cut before, oldest first; makes cutting resumable.
    :param leading: the first requests that get shards of their own, each of exactly so many unless they are too large.
    """
    recent = deque(totals, maxlen=RECENT)
    ahead = deque(leading)
    waiting: deque[int] = deque()
    payload = 0  # bytes of the waiting lines, without the commas between them
    for size in sizes:
        most = min(ahead[0].count, max_requests) if ahead else max_requests
        while waiting and (len(waiting) == most or _body(payload + size, len(waiting) + 1) > max_bytes):
            shard, payload = _next(waiting, payload, recent, ahead)
            yield shard
            most = min(ahead[0].count, max_requests) if ahead else max_requests
        waiting.append(size)
        payload += size
    while waiting:
        shard, payload = _next(waiting, payload, recent, ahead)
        yield shard


def _next(waiting: deque[int], payload: int, recent: deque[int], ahead: deque[Lead]) -> tuple[Shard, int]:
    """The next shard: all that waits where it goes ahead, and what leaves it a total of its own elsewhere."""
    if not ahead:
        return _take(waiting, payload, recent)
    lead, count = ahead.popleft(), len(waiting)
    if lead.count > count:
        ahead.appendleft(Lead(lead.count - count, lead.role))
    waiting.clear()
    recent.append(count)
    return Shard(count, _body(payload, count), lead.role), 0


def _body(payload: int, count: int) -> int:
    return len(HEAD) + payload + count - 1 + len(TAIL)


def _take(waiting: deque[int], payload: int, recent: deque[int]) -> tuple[Shard, int]:
    """The next shard of what waits, and the bytes of what still waits after it."""
    count = _different(len(waiting), recent)
    left = [waiting.pop() for _ in range(len(waiting) - count)]
    waiting.clear()
    waiting.extend(reversed(left))
    recent.append(count)
    return Shard(count, _body(payload - sum(left), count)), sum(left)


def _different(count: int, recent: deque[int]) -> int:
    for candidate in range(count, max(1, count - count // SPARE) - 1, -1):
        if candidate not in recent:
            return candidate
    if recent and recent[-1] == count and count > 1:
        return count - 1
    return count
