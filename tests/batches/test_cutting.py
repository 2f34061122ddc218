"""Cutting as mathematics: sizes exact, order kept, limits held, neighbours told apart, resumable anywhere."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from webapp.batches.cutting import SPARE, Lead, Shard, cut
from webapp.batches.encoding import HEAD, TAIL
from webapp.batches.states import BatchRole

FRAME = len(HEAD) + len(TAIL)
sizes_of_lines = st.lists(st.integers(1, 400), max_size=120)
limits = st.tuples(st.integers(1, 40), st.integers(400 + FRAME, 3000))


def shards_of(sizes: list[int], limit: tuple[int, int], totals: list[int] | None = None) -> list[Shard]:
    return list(cut(sizes, max_requests=limit[0], max_bytes=limit[1], totals=totals or []))


@given(sizes_of_lines, limits)
def test_every_line_is_in_one_shard_in_order_and_bodies_are_exact(sizes: list[int], limit: tuple[int, int]) -> None:
    rest = list(sizes)
    for shard in shards_of(sizes, limit):
        taken, rest = rest[: shard.count], rest[shard.count :]
        body = HEAD + b",".join(b"x" * size for size in taken) + TAIL
        assert (shard.count, shard.body_bytes) == (len(taken), len(body))
    assert rest == []


@given(sizes_of_lines, limits)
def test_no_shard_is_over_a_limit(sizes: list[int], limit: tuple[int, int]) -> None:
    for shard in shards_of(sizes, limit):
        assert 1 <= shard.count <= limit[0]
        assert shard.body_bytes <= limit[1]


@given(sizes_of_lines, limits)
def test_neighbours_have_different_totals(sizes: list[int], limit: tuple[int, int]) -> None:
    for one, other in pairwise(shards_of(sizes, limit)):
        assert one.count != other.count or one.count == 1


@given(sizes_of_lines, limits, st.data())
def test_cutting_resumed_after_any_shard_goes_on_the_same_way(
    sizes: list[int], limit: tuple[int, int], data: st.DataObject
) -> None:
    whole = shards_of(sizes, limit)
    done = data.draw(st.integers(0, len(whole)))
    totals = [shard.count for shard in whole[:done]]
    assert shards_of(sizes[sum(totals) :], limit, totals) == whole[done:]


@given(st.lists(st.just(100), min_size=200, max_size=1000), st.integers(40, 100))
def test_a_shard_gives_up_little_to_be_different(sizes: list[int], most: int) -> None:
    shards = shards_of(sizes, (most, 10**9))
    for shard in shards[:-1]:
        assert shard.count >= most - most // SPARE - 1


def test_25000_lines_make_three_batches_of_different_totals() -> None:
    shards = shards_of([100] * 25_000, (10_000, 250_000_000))
    assert [shard.count for shard in shards] == [10_000, 9_999, 5_001]


def test_nothing_is_cut_of_nothing() -> None:
    assert shards_of([], (10, 1000)) == []


@given(sizes_of_lines, limits, st.lists(st.integers(1, 50), max_size=2))
def test_what_goes_ahead_is_the_first_lines_and_exactly_so_many(
    sizes: list[int], limit: tuple[int, int], counts: list[int]
) -> None:
    leading = [Lead(count, role) for count, role in zip(counts, BatchRole, strict=False)]
    shards = list(cut(sizes, max_requests=limit[0], max_bytes=limit[1], leading=leading))
    assert sum(shard.count for shard in shards) == len(sizes)
    assert all(1 <= shard.count <= limit[0] and shard.body_bytes <= limit[1] for shard in shards)
    left = len(sizes)
    for lead in leading:
        taken = sum(shard.count for shard in shards if shard.role == lead.role)
        assert taken == min(lead.count, left)
        left -= taken
    order = [list(BatchRole).index(shard.role) if shard.role else len(BatchRole) for shard in shards]
    assert order == sorted(order)
