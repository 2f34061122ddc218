"""The whole road, from records to outputs and their cost, against the sandbox."""

from __future__ import annotations

from support.desk import DeskDriver, documents
from support.sandbox import Sandbox


def test_each_record_is_answered_once_and_paid_once(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id = desk.run(documents(50))

    summary = desk.summary(run_id)
    assert (summary.requests, summary.succeeded, summary.batches) == (50, 50, 1)
    outputs = desk.outputs(run_id)
    assert [row.key for row in outputs] == [f"doc-{n}" for n in range(50)]
    assert {row.output_json for row in outputs} == {'{"label":"alpha"}', '{"label":"beta"}'}
    assert summary.cost_usd and summary.sync_cost_usd
    accepted = [line["custom_id"] for line in sandbox.accepted()]
    assert len(accepted) == len(set(accepted)) == 50
