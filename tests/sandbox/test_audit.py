"""The sandbox's own books: what it accepted and what it billed."""

from __future__ import annotations

from collections import Counter

import anthropic
from support.sandbox import Sandbox
from support.sandbox_calls import SONNET, params, requests, rows, run_batch


def test_what_was_accepted_is_listed_in_the_order_it_came(sandbox: Sandbox, client: anthropic.Anthropic) -> None:
    first, second = (run_batch(client, requests(3)) for _ in range(2))
    expected = [{"custom_id": f"r-{at}", "batch_id": batch.id} for batch in (first, second) for at in range(3)]
    assert sandbox.accepted() == expected
    assert sandbox.accepted(second.id) == expected[3:]


def test_the_bill_is_the_sum_of_what_succeeded_rows_used(sandbox: Sandbox, client: anthropic.Anthropic) -> None:
    sandbox.configure(errored_share=0.2, expired_share=0.1)
    system = [{"type": "text", "text": "s" * 4000, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    batch = run_batch(client, [*requests(60, model=SONNET, system=system), {"custom_id": "h", "params": params()}])
    billed = sandbox.bill()
    total: Counter[str] = Counter()
    for result in rows(client, batch.id).values():
        if result["type"] == "succeeded":
            usage = result["message"]["usage"]
            total["requests"] += 1
            total["input_tokens"] += usage["input_tokens"]
            total["cache_creation_5m_input_tokens"] += usage["cache_creation"]["ephemeral_5m_input_tokens"]
            total["cache_creation_1h_input_tokens"] += usage["cache_creation"]["ephemeral_1h_input_tokens"]
            total["cache_read_input_tokens"] += usage["cache_read_input_tokens"]
            total["output_tokens"] += usage["output_tokens"]
    assert total["cache_read_input_tokens"] > 0
    # Sonnet and Haiku in a batch, in picodollars per token: input, 1-hour write, read, output.
    dearer, cheaper = (1_000_000, 2_000_000, 50_000, 5_000_000), (500_000, 1_000_000, 50_000, 2_500_000)
    names = ("input_tokens", "cache_creation_1h_input_tokens", "cache_read_input_tokens", "output_tokens")
    amount = sum(
        rate * used[name]
        for model, used in billed["batches"][0]["models"].items()
        for rate, name in zip(dearer if model == SONNET else cheaper, names, strict=True)
    )
    assert billed["total"] == dict(total) | {
        "cache_creation_5m_input_tokens": 0,
        "picodollars": amount,
        "unpriced": 0,
    }
    (line,) = billed["batches"]
    assert (line["id"], line["total"]) == (batch.id, billed["total"])
    assert set(line["models"]) <= {SONNET, "claude-haiku-4-5-20251001"}
    assert sum(model["requests"] for model in line["models"].values()) == total["requests"]


def test_the_bill_is_the_same_before_and_after_the_results_were_read(
    sandbox: Sandbox, client: anthropic.Anthropic
) -> None:
    batch = run_batch(client, requests(20))
    rows(client, batch.id)
    read = sandbox.bill()["batches"][0]["models"]
    other = run_batch(client, requests(20))
    unread = next(line for line in sandbox.bill()["batches"] if line["id"] == other.id)["models"]
    rows(client, other.id)
    again = next(line for line in sandbox.bill()["batches"] if line["id"] == other.id)["models"]
    assert read == unread == again


def test_a_batch_in_progress_is_not_billed_yet(sandbox: Sandbox, client: anthropic.Anthropic) -> None:
    sandbox.configure(delay=60)
    client.messages.batches.create(requests=requests(5))
    assert sandbox.bill()["total"]["requests"] == 0
    sandbox.advance(60)
    assert sandbox.bill()["total"]["requests"] == 5


def test_the_cancelled_part_is_not_billed(sandbox: Sandbox, client: anthropic.Anthropic) -> None:
    sandbox.configure(delay=60)
    batch = client.messages.batches.create(requests=requests(50))
    client.messages.batches.cancel(batch.id)
    ended = client.messages.batches.retrieve(batch.id)
    assert ended.request_counts.canceled > 0
    assert sandbox.bill()["total"]["requests"] == ended.request_counts.succeeded
