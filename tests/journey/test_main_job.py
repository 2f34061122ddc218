"""The main job from nothing: `batchdesk run` with its own services and worker, and `resubmit` after failures."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from support.audit import audit
from support.desk import DeskDriver, documents
from support.installation import Finished, Installation
from support.sandbox import SandboxProcess

pytestmark = pytest.mark.journey

FAILING = ("errored", "canceled", "expired", "missing", "stopped", "invalid")
KEYS = ["run", "requests", "succeeded", *FAILING, "batches", "cost_usd", "sync_cost_usd"]
LINE = ["key", "status", "output", "error", "custom_id", "attempts"]


def sums_agree(done: Finished, installation: Installation, count: int) -> None:
    """The object adds up, and so do the lines of the output file."""
    summary, lines = done.summary, installation.outputs()
    assert list(summary) == KEYS
    assert summary["requests"] == count == summary["succeeded"] + sum(summary[name] for name in FAILING)
    assert [line["key"] for line in lines] == [f"doc-{n}" for n in range(count)]
    for name in ("succeeded", *FAILING):
        assert sum(line["status"] == name for line in lines) == summary[name], name
    assert all(list(line) == LINE for line in lines)


@pytest.fixture
def large(api: SandboxProcess) -> Iterator[Installation]:
    with Installation.made(api) as made:
        yield made


def test_ten_thousand_records_from_nothing_are_answered_once_each_in_input_order(
    large: Installation, api: SandboxProcess
) -> None:
    count = 10_000
    done = large.classify(large.write("docs.jsonl", documents(count)))

    assert done.status == 0, done.err
    assert not large.left_running()
    sums_agree(done, large, count)
    assert done.summary["succeeded"] == count and done.summary["batches"] == 1
    assert done.summary["cost_usd"] == pytest.approx(done.summary["sync_cost_usd"] / 2)
    assert len(done.out.splitlines()) == 1, "words for people go to stderr"
    lines = large.outputs()
    assert all(line["output"] == {"label": "beta" if n % 2 == 0 else "alpha"} for n, line in enumerate(lines))
    assert {line["attempts"] for line in lines} == {1} and {line["error"] for line in lines} == {None}
    assert {line["custom_id"] for line in lines} == {one["custom_id"] for one in api.accepted()}
    with large.desk() as desk:
        audit(desk, api)


def test_one_record_with_everything_up(shared: Installation, desk: DeskDriver) -> None:
    began = time.monotonic()
    done = shared.classify(shared.write("one.jsonl", documents(1)))
    print(f"one record with everything up: {time.monotonic() - began:.1f} s")
    assert (done.status, done.summary["succeeded"]) == (0, 1), done.err


def test_one_record_from_nothing(installation: Installation) -> None:
    source = installation.write("one.jsonl", documents(1))
    began = time.monotonic()
    done = installation.classify(source)
    print(f"one record from nothing: {time.monotonic() - began:.1f} s")
    assert (done.status, done.summary["succeeded"]) == (0, 1), done.err


def test_failures_among_shuffled_doubled_and_unknown_lines_are_named_and_a_resubmission_completes_the_run(
    api: SandboxProcess,
) -> None:
    count = 1000
    api.configure(invalid_share=0.01, expired_share=0.02, results_faults="duplicate:5+unknown:5*")
    with Installation.made(api, batch_max_requests="250", max_attempts="1") as installation:
        source = installation.write("docs.jsonl", documents(count))
        done = installation.classify(source)

        assert done.status == 3, done.err
        sums_agree(done, installation, count)
        failed = [line for line in installation.outputs() if line["status"] != "succeeded"]
        assert {line["status"] for line in failed} == {"errored", "expired"}
        assert all(line["error"] and line["output"] is None and line["custom_id"] for line in failed)
        assert done.summary["errored"] and done.summary["expired"] and done.summary["batches"] >= 4

        api.configure(invalid_share=0, expired_share=0, results_faults="")
        again = installation.run("resubmit", "1", "--json", "--out", installation.folder / "out.jsonl", seconds=150)

        assert again.status == 0, again.err
        sums_agree(again, installation, count)
        assert again.summary["cost_usd"] > done.summary["cost_usd"]
        once_failed = {line["key"] for line in failed}
        for line in installation.outputs():
            assert line["status"] == "succeeded" and line["attempts"] == (2 if line["key"] in once_failed else 1)
        with installation.desk() as desk:
            audit(desk, api)


def test_what_expired_goes_again_by_itself_and_is_waited_for(
    shared: Installation, shared_api: SandboxProcess, desk: DeskDriver
) -> None:
    count = 500
    before = len(shared_api.accepted())
    shared_api.configure(expired_share=0.04)
    done = shared.classify(shared.write("docs.jsonl", documents(count)))

    assert done.status == 0, done.err
    sums_agree(done, shared, count)
    attempts = [line["attempts"] for line in shared.outputs()]
    assert max(attempts) > 1 and sum(attempts) == len(shared_api.accepted()) - before
    nothing = shared.run("resubmit", str(done.summary["run"]), "--json")
    assert (nothing.status, nothing.summary) == (0, done.summary), nothing.err
