"""Prompt-cache accounting, reckoned by hand: Haiku 4.5 counts a token per 4 characters, 8 per request and 4 per
message on top, and caches from 4,096 tokens on."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
from support.sandbox import Sandbox
from support.sandbox_calls import SONNET, params, rows, run_batch

LONG = "a" * 4 * 5000
SHORT = "a" * 4 * 4000
OWN = "b" * 4 * 100
OVERHEAD = 8 + 4
HOUR = {"type": "ephemeral", "ttl": "1h"}
FIVE_MINUTES = {"type": "ephemeral"}


def system(*blocks: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text} | ({"cache_control": mark} if mark else {}) for text, mark in blocks]


def batch_of(count: int, *, prefix: str = "r", **others: Any) -> list[dict[str, Any]]:
    return [{"custom_id": f"{prefix}-{at}", "params": params(OWN, **others)} for at in range(count)]


def usages(client: anthropic.Anthropic, wanted: list[dict[str, Any]]) -> list[tuple[int, int, int, int]]:
    """Of each row, in the order of the stream: input, written for 5 minutes, written for an hour, read."""
    return used(client, run_batch(client, wanted).id)


def used(client: anthropic.Anthropic, batch_id: str) -> list[tuple[int, int, int, int]]:
    """The same of a batch that has ended."""
    found = []
    for result in rows(client, batch_id).values():
        usage = result["message"]["usage"]
        split = usage["cache_creation"]
        five, hour = split["ephemeral_5m_input_tokens"], split["ephemeral_1h_input_tokens"]
        assert usage["cache_creation_input_tokens"] == five + hour
        found.append((usage["input_tokens"], five, hour, usage["cache_read_input_tokens"]))
    return found


@pytest.fixture(autouse=True)
def always_hit(sandbox: Sandbox) -> None:
    sandbox.configure(cache_hit_rate=1)


@pytest.mark.parametrize(("mark", "written"), [(FIVE_MINUTES, (5000, 0)), (HOUR, (0, 5000))])
def test_the_first_request_writes_and_the_others_read(
    client: anthropic.Anthropic, mark: Any, written: tuple[int, int]
) -> None:
    first, *others = usages(client, batch_of(3, system=system((LONG, mark))))
    assert first == (100 + OVERHEAD, *written, 0)
    assert others == [(100 + OVERHEAD, 0, 0, 5000)] * 2


def test_without_a_marker_everything_is_plain_input(client: anthropic.Anthropic) -> None:
    assert usages(client, batch_of(2, system=LONG)) == [(5100 + OVERHEAD, 0, 0, 0)] * 2


def test_a_prefix_below_the_models_minimum_is_silently_not_cached(client: anthropic.Anthropic) -> None:
    assert usages(client, batch_of(2, system=system((SHORT, HOUR)))) == [(4100 + OVERHEAD, 0, 0, 0)] * 2


def test_the_minimum_is_the_models_own(client: anthropic.Anthropic) -> None:
    # 4,000 characters make 1,300 tokens with the newer tokenizer: over Sonnet 5.5's 512, under Haiku's 4,096.
    others = {"system": system(("a" * 4000, HOUR)), "model": SONNET}
    first, second = usages(client, batch_of(2, **others))
    assert first == (130 + OVERHEAD, 0, 1300, 0)
    assert second == (130 + OVERHEAD, 0, 0, 1300)


def test_requests_that_run_at_once_all_miss_a_cold_cache(sandbox: Sandbox, client: anthropic.Anthropic) -> None:
    sandbox.configure(cache_cold_requests=4)
    found = usages(client, batch_of(10, system=system((LONG, HOUR))))
    assert found[:4] == [(100 + OVERHEAD, 0, 5000, 0)] * 4
    assert found[4:] == [(100 + OVERHEAD, 0, 0, 5000)] * 6


def test_the_hit_rate_leaves_a_share_that_writes_again(sandbox: Sandbox, client: anthropic.Anthropic) -> None:
    sandbox.configure(cache_hit_rate=0.5)
    found = usages(client, batch_of(200, system=system((LONG, HOUR))))
    reads = [usage for usage in found if usage[3]]
    assert len(reads) in (99, 100)  # of the 199 that come after the first
    assert {usage for usage in found if not usage[3]} == {(100 + OVERHEAD, 0, 5000, 0)}


def test_an_hour_goes_to_its_marker_and_five_minutes_to_the_rest(client: anthropic.Anthropic) -> None:
    blocks = system((LONG, HOUR), ("c" * 4 * 300, FIVE_MINUTES))
    first, second = usages(client, batch_of(2, system=blocks))
    assert first == (100 + OVERHEAD, 300, 5000, 0)
    assert second == (100 + OVERHEAD, 0, 0, 5300)


def test_a_shared_beginning_is_read_and_only_what_follows_is_written(client: anthropic.Anthropic) -> None:
    one = params(OWN, system=system((LONG, HOUR), ("c" * 4 * 300, HOUR)))
    other = params(OWN, system=system((LONG, HOUR), ("d" * 4 * 300, HOUR)))
    wanted = [{"custom_id": name, "params": each} for name, each in (("a", one), ("b", other))]
    first, second = usages(client, wanted)
    assert first == (100 + OVERHEAD, 0, 5300, 0)
    assert second == (100 + OVERHEAD, 0, 300, 5000)


def test_tools_come_before_the_system_prompt(client: anthropic.Anthropic) -> None:
    tools = [{"name": "t", "description": "x" * 19_917, "input_schema": {"type": "object"}, "cache_control": HOUR}]
    first, second = usages(client, batch_of(2, tools=tools, system=system(("c" * 400, None))))
    assert first[2] > 4900
    assert first[0] == 200 + OVERHEAD
    assert second == (200 + OVERHEAD, 0, 0, first[2])


def test_a_prefix_written_by_an_ended_batch_is_read_for_its_hour(sandbox: Sandbox, client: anthropic.Anthropic) -> None:
    wanted = system((LONG, HOUR))
    run_batch(client, batch_of(1, prefix="warm", system=wanted))
    sandbox.advance(3500)
    assert usages(client, batch_of(3, system=wanted)) == [(100 + OVERHEAD, 0, 0, 5000)] * 3
    sandbox.advance(3700)
    assert usages(client, batch_of(1, prefix="late", system=wanted)) == [(100 + OVERHEAD, 0, 5000, 0)]


def test_a_prefix_for_five_minutes_is_gone_after_them(sandbox: Sandbox, client: anthropic.Anthropic) -> None:
    wanted = system((LONG, FIVE_MINUTES))
    run_batch(client, batch_of(1, prefix="warm", system=wanted))
    sandbox.advance(200)
    assert usages(client, batch_of(1, prefix="soon", system=wanted)) == [(100 + OVERHEAD, 0, 0, 5000)]
    sandbox.advance(400)
    assert usages(client, batch_of(1, prefix="late", system=wanted)) == [(100 + OVERHEAD, 5000, 0, 0)]


def test_a_batch_that_still_runs_warms_nothing(sandbox: Sandbox, client: anthropic.Anthropic) -> None:
    sandbox.configure(delay=100)
    client.messages.batches.create(requests=batch_of(1, prefix="slow", system=system((LONG, HOUR))))  # type: ignore[arg-type]
    sandbox.configure(delay=0)
    assert usages(client, batch_of(1, system=system((LONG, HOUR)))) == [(100 + OVERHEAD, 0, 5000, 0)]


def test_in_a_long_batch_five_minutes_are_over_before_the_next_request(
    sandbox: Sandbox, client: anthropic.Anthropic
) -> None:
    # Ten requests in an hour, one every six minutes; ten in half an hour, one every three.
    assert [usage[3] for usage in slowly(sandbox, client, FIVE_MINUTES, seconds=3600)] == [0] * 10
    assert [usage[3] for usage in slowly(sandbox, client, FIVE_MINUTES, seconds=1800)] == [0] + [5000] * 9
    assert [usage[3] for usage in slowly(sandbox, client, HOUR, seconds=3600)] == [0] + [5000] * 9


def slowly(
    sandbox: Sandbox, client: anthropic.Anthropic, mark: Any, *, seconds: int
) -> list[tuple[int, int, int, int]]:
    """What ten requests of a batch that takes so long use, with a prefix of its own."""
    sandbox.configure(delay=seconds)
    wanted = batch_of(10, system=system((f"{mark} {seconds} ".ljust(len(LONG), "a"), mark)))
    batch = client.messages.batches.create(requests=wanted)  # type: ignore[arg-type]
    sandbox.advance(seconds + 1)
    return used(client, batch.id)


def test_what_was_warm_at_the_beginning_is_cold_again_when_nobody_reads_it_in_time(
    sandbox: Sandbox, client: anthropic.Anthropic
) -> None:
    wanted = system((LONG, FIVE_MINUTES))
    run_batch(client, batch_of(1, prefix="warm", system=wanted))
    sandbox.advance(200)
    sandbox.configure(delay=4000, cache_cold_requests=2)
    batch = client.messages.batches.create(requests=batch_of(5, system=wanted))  # type: ignore[arg-type]
    sandbox.advance(4001)
    # The first finds it, with a hundred seconds left; the others, 800 seconds apart, find nothing.
    assert [usage[3] for usage in used(client, batch.id)] == [5000, 0, 0, 0, 0]


def test_who_is_behind_one_request_that_has_ended_finds_what_it_wrote(
    sandbox: Sandbox, client: anthropic.Anthropic
) -> None:
    sandbox.configure(cache_cold_requests=4)
    wanted = system((LONG, HOUR))
    assert [usage[3] for usage in usages(client, batch_of(1, prefix="first", system=wanted))] == [0]
    assert [usage[3] for usage in usages(client, batch_of(10, system=wanted))] == [5000] * 10


def test_a_cache_is_not_shared_between_models(client: anthropic.Anthropic) -> None:
    run_batch(client, batch_of(1, prefix="one", system=system((LONG, HOUR))))
    found = usages(client, batch_of(1, system=system((LONG, HOUR)), model="claude-sonnet-4-5"))
    assert found == [(100 + OVERHEAD, 0, 5000, 0)]


def test_an_errored_row_writes_nothing(client: anthropic.Anthropic) -> None:
    bad = {"custom_id": "bad", "params": params(OWN, system=system((LONG, HOUR)), max_tokens=0)}
    run_batch(client, [bad])
    assert usages(client, batch_of(1, system=system((LONG, HOUR)))) == [(100 + OVERHEAD, 0, 5000, 0)]


def test_a_marker_at_the_top_level_is_on_the_last_block(client: anthropic.Anthropic) -> None:
    wanted = params(LONG, cache_control=HOUR)
    found = usages(client, [{"custom_id": name, "params": wanted} for name in ("a", "b")])
    assert found == [(OVERHEAD, 0, 5000, 0), (OVERHEAD, 0, 0, 5000)]
