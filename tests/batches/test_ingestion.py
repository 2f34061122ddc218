"""Ingestion: whatever a results stream holds, each answer is stored once and paid once, and nothing stops it."""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import Any

import orjson
import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from webapp import db, wishes
from webapp.batches import ingestion, lines
from webapp.batches.processing import MOST_OUTPUT
from webapp.batches.states import FailureClass
from webapp.gateway import Gateway
from webapp.records.exporting import jsonl_line


def ended(desk: DeskDriver, count: int = 12) -> tuple[int, int]:
    """A run whose one batch has ended at the API, nothing of it read: (run id, batch id)."""
    run_id = desk.start(documents(count))
    return run_id, desk.perform_until("ingesting")


def ingest(desk: DeskDriver, batch_id: int) -> None:
    desk.lapse()
    desk.hurry()
    desk.perform("ingest", batch_id)


def notes(desk: DeskDriver) -> str:
    return " ".join(reason for (reason,) in desk.rows("SELECT reason FROM events WHERE kind = 'note' ORDER BY id"))


# -- what a stream can hold ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "faults",
    [
        "duplicate:7",
        "unknown:3",
        "garbage:2",
        "blank",
        "crlf",
        "duplicate:3+unknown:2+garbage:1+blank+crlf",
        "truncate:3000",
        "truncate:10,truncate:4000",
        "500",
        "drop_before",
        "missing:3",
        "unknown_type:2",
    ],
)
def test_a_troubled_stream_is_ingested_once_and_whole(
    desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, faults: str
) -> None:
    """I3: the results endpoint fails once after the end, and the batch must not be stranded."""
    monkeypatch.setattr(lines, "CHUNK_LINES", 5)
    sandbox.configure(results_faults=faults)
    desk.change(missing_wait=60)
    run_id = desk.start(documents(12))
    desk.work_until_over(run_id, hurry=True)
    assert desk.summary(run_id).succeeded == 12
    assert {row.attempts for row in desk.outputs(run_id)} == {1}
    audit(desk, sandbox)


def test_unknown_and_unreadable_lines_are_told(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(results_faults="unknown:2+garbage:1")
    desk.run(documents(3))
    assert "2 lines of unknown custom_id (such as nobodys-" in notes(desk)
    assert "lines that cannot be read" in notes(desk)


def test_a_cut_stream_keeps_what_it_brought(
    desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "CHUNK_LINES", 2)
    monkeypatch.setattr("webapp.gateway.READ_CHUNK", 512)
    sandbox.configure(results_faults="truncate:4000")
    _, batch_id = ended(desk)
    ingest(desk, batch_id)
    assert desk.batch(batch_id).state == "ingesting"
    stored = desk.scalar("SELECT count(*) FROM results")
    assert 0 < stored < 12
    assert desk.scalar("SELECT count(*) FROM ledger_lines") == stored
    ingest(desk, batch_id)
    assert desk.batch(batch_id).state == "done"
    desk.perform_due()
    audit(desk, sandbox)


def test_expired_and_errored_rows_are_ingested_with_the_rest(desk: DeskDriver, sandbox: Sandbox) -> None:
    """I4: paid results of a batch that did not go well must be read."""
    desk.change(max_attempts=1)
    sandbox.configure(errored_share=0.2, expired_share=0.2, invalid_share=0.2)
    run_id = desk.run(documents(60))
    summary = desk.summary(run_id)
    assert summary.succeeded and summary.errored and summary.expired
    assert summary.succeeded + summary.errored + summary.expired == 60
    classes = dict(desk.rows("SELECT failure_class, count(*) FROM items GROUP BY 1"))
    assert set(classes) == {None, "retry", "fix"}
    audit(desk, sandbox)


def test_a_batch_that_expired_keeps_what_it_did(desk: DeskDriver, sandbox: Sandbox) -> None:
    """I4: an expired batch holds paid results."""
    desk.change(max_attempts=1)
    sandbox.configure(delay=172_800)
    run_id = desk.start(documents(40))
    desk.perform_until("in_progress")
    sandbox.advance(90_000)
    desk.work_until_over(run_id, hurry=True)
    summary = desk.summary(run_id)
    assert summary.succeeded and summary.expired
    assert summary.succeeded + summary.expired == 40
    audit(desk, sandbox)


def test_a_line_is_missing_only_after_two_fetches_far_enough_apart(desk: DeskDriver, sandbox: Sandbox) -> None:
    """I6: ended, but some rows missing, noticed three days later."""
    desk.change(missing_wait=600, max_attempts=1)
    sandbox.configure(missing_share=0.3)
    run_id, batch_id = ended(desk, 30)
    ingest(desk, batch_id)
    assert desk.scalar("SELECT extract(epoch FROM due_at - now()) FROM steps WHERE step = 'ingest'") <= 10
    ingest(desk, batch_id)
    assert desk.batch(batch_id).state == "ingesting"
    assert 500 < desk.scalar("SELECT extract(epoch FROM due_at - now()) FROM steps WHERE step = 'ingest'") <= 600
    desk.execute("UPDATE batches SET incomplete_since = now() - interval '601 seconds'")
    ingest(desk, batch_id)
    assert desk.batch(batch_id).state == "done"
    desk.work_until_over(run_id)
    summary = desk.summary(run_id)
    assert summary.missing and summary.succeeded + summary.missing == 30
    audit(desk, sandbox)


def test_missing_lines_are_listed_and_go_again(desk: DeskDriver, sandbox: Sandbox) -> None:
    """I6: missing rows are listed and can be sent again."""
    sandbox.configure(missing_share=0.3)
    run_id = desk.run(documents(30))
    assert desk.scalar("SELECT count(*) FROM requests WHERE state = 'missing'") > 0
    assert desk.summary(run_id).succeeded >= 25
    audit(desk, sandbox)


def test_a_type_of_result_that_stays_unknown_is_missing_and_told_and_never_paid_twice(
    desk: DeskDriver, sandbox: Sandbox
) -> None:
    """The API counts it as an answer: whatever it is, it is paid, and only a person sends it again."""
    sandbox.configure(results_faults="unknown_type:2*")
    run_id = desk.run(documents(6))
    summary = desk.summary(run_id)
    assert (summary.succeeded, summary.missing) == (4, 2)
    assert desk.batch(1).owed == 2
    assert "2 lines that cannot be read" in notes(desk)
    assert {row.attempts for row in desk.outputs(run_id)} == {1}


def test_a_late_line_is_stored_when_it_comes(desk: DeskDriver, sandbox: Sandbox) -> None:
    desk.change(max_attempts=1)
    sandbox.configure(results_faults="missing:4*2")
    run_id = desk.run(documents(10))
    assert desk.summary(run_id).missing == 4
    batch_id = desk.scalar("SELECT id FROM batches")
    wishes.ask_refetch(batch_id, actor="tester")
    ingest(desk, batch_id)
    desk.perform_due()
    assert desk.summary(run_id).succeeded == 10
    assert all(row.output_json for row in desk.outputs(run_id))
    audit(desk, sandbox)


def test_a_late_line_of_an_attempt_that_was_made_again_is_paid_and_its_output_counts(
    desk: DeskDriver, sandbox: Sandbox
) -> None:
    """The output of a subject is that of its lowest succeeded attempt; both answers are in the ledger."""
    sandbox.configure(results_faults="missing:4*2")
    run_id = desk.run(documents(10))
    assert desk.states() == ["done"]
    wishes.ask_resubmit(run_id, [FailureClass.RETRY], actor="tester")
    desk.work_until_over(run_id)
    assert desk.states() == ["done", "done"]
    batch_id = desk.scalar("SELECT min(id) FROM batches")
    wishes.ask_refetch(batch_id, actor="tester")
    ingest(desk, batch_id)
    desk.perform_due()
    assert desk.scalar("SELECT count(*) FROM ledger_lines") == 14
    desk.execute("UPDATE outputs SET value = '\"first\"' FROM requests r WHERE r.id = request_id AND attempt = 1")
    assert {row.output_json for row in desk.outputs(run_id)} == {'"first"'}
    audit(desk, sandbox)


def test_ingesting_three_times_at_once_leaves_one_ledger(
    desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I7: three polls billed three times. The leases are given to all three by force."""
    monkeypatch.setattr(lines, "CHUNK_LINES", 5)
    run_id, batch_id = ended(desk, 40)
    start = threading.Barrier(3)

    def one() -> None:
        with desk.app.app_context():
            start.wait(10)
            for _ in range(5):
                desk.lapse()
                desk.perform("ingest", batch_id)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    desk.lapse()
    desk.work_until_over(run_id, hurry=True)
    assert desk.scalar("SELECT count(*) FROM ledger_lines") == 40
    audit(desk, sandbox)


def test_a_worker_killed_between_chunks_loses_and_doubles_nothing(
    desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    monkeypatch.setattr(lines, "CHUNK_LINES", 4)
    run_id, batch_id = ended(desk)
    real = ingestion._write
    for after in range(3):
        left = [after]

        def counted(*arguments: Any, left: list[int] = left) -> None:
            real(*arguments)
            if not left[0]:
                raise Killed  # all is written, nothing is committed
            left[0] -= 1

        with monkeypatch.context() as patched:
            patched.setattr(ingestion, "_write", counted)
            with pytest.raises(Killed):
                ingest(desk, batch_id)
    ingest(desk, batch_id)
    desk.work_until_over(run_id)
    assert desk.summary(run_id).succeeded == 12
    audit(desk, sandbox)


def test_a_slow_stream_keeps_its_lease(desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slower than the lease is long, chunk by chunk: workers would take it from each other for ever."""
    monkeypatch.setattr("webapp.batches.steps.LEASE_SECONDS", 0.5)
    run_id, batch_id = ended(desk, 3)
    chunks = ingestion.chunks

    def slowly(stream: Any) -> Any:
        for chunk in chunks(stream):
            over.wait(1.2)
            assert desk.scalar("SELECT lease_until > now() FROM steps WHERE step = 'ingest'")
            yield chunk

    over = threading.Event()
    monkeypatch.setattr(ingestion, "chunks", slowly)
    desk.perform("ingest", batch_id)
    assert desk.batch(batch_id).state == "done"
    desk.work_until_over(run_id)


def test_account_failures_pause_the_run_even_if_their_chunk_was_read_by_a_worker_that_died(
    desk: DeskDriver, sandbox: Sandbox, api: Api
) -> None:
    """I11: seen again or not, the account is refused."""
    run_id, batch_id, ids = api.ended(desk, 4)
    credit = {"type": "invalid_request_error", "message": "Your credit balance is too low to access the API."}
    errored = {"type": "errored", "error": {"type": "error", "error": credit, "request_id": None}}
    api.body = b"".join(line(identifier, errored) for identifier in ids[:2])
    ingest(desk, batch_id)
    api.body += b"".join(line(identifier, succeeded()) for identifier in ids[2:])
    ingest(desk, batch_id)
    status = desk.work_until_over(run_id)
    assert status.state == "paused"
    assert "credit balance is too low" in (status.reason or "")
    assert desk.summary(run_id).succeeded == 2


# -- odd lines -------------------------------------------------------------------------------------------------


def line(custom_id: str, result: Any) -> bytes:
    return orjson.dumps({"custom_id": custom_id, "result": result}) + b"\n"


def succeeded(**changes: Any) -> dict[str, Any]:
    """A result as the API writes it, with some members of the message otherwise."""
    usage = {"input_tokens": 10, "output_tokens": 5}
    content = [{"type": "text", "text": '{"label":"alpha"}'}]
    message = {"model": "claude-haiku-5-5", "content": content, "stop_reason": "end_turn", "usage": usage}
    return {"type": "succeeded", "message": message | changes}


class Api:
    """A results endpoint that answers what a test says: real HTTP, for lines that the sandbox never writes."""

    def __init__(self, app: Flask) -> None:
        self.body = b""
        self.server = make_server("127.0.0.1", 0, self, threaded=True)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def __call__(self, environ: Any, start_response: Any) -> Any:
        assert Request(environ).path.endswith("/results")
        return Response(self.body, content_type="application/x-jsonl")(environ, start_response)

    def ended(self, desk: DeskDriver, count: int) -> tuple[int, int, list[str]]:
        """A run whose results come from here: (run id, batch id, custom_ids)."""
        run_id, batch_id = ended(desk, count)
        desk.desk.gateway = Gateway(api_key="key", base_url=f"http://127.0.0.1:{self.server.port}")
        return run_id, batch_id, [one for (one,) in desk.rows("SELECT custom_id FROM requests ORDER BY id")]

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join(5)
        self.server.server_close()


@pytest.fixture
def api(app: Flask) -> Any:
    api = Api(app)
    yield api
    api.close()


ODD_LINES = [
    b"null",
    b"[]",
    b'"text"',
    b"{}",
    b'{"custom_id":"x"}',
    b'{"custom_id":1,"result":{"type":"canceled"}}',
    b'{"custom_id":"x","result":null}',
    b'{"custom_id":"x","result":[]}',
    b'{"custom_id":"x","result":{"type":[]}}',
    b'{"custom_id":"x","result":{"type":{}}}',
    b'{"custom_id":"x","result":{"type":null}}',
    b'{"custom_id":"a\\u0000b","result":{"type":"canceled"}}',
    b'{"custom_id":"\\ud800","result":{"type":"canceled"}}',
    b'{"custom_id":"","result":{"type":"canceled"}}',
    b'{"custom_id":"' + b"y" * 100_000 + b'","result":{"type":"canceled"}}',
    b'{"custom_id":"\xff\xfe","result":{"type":"canceled"}}',
    '{"custom_id":"x","result":{"type":"canceled"}}'.encode("utf-16"),
    b"\xef\xbb\xbf" + b'{"custom_id":"x","result":{"type":"canceled"}}',
    b"[" * 100_000,
    b'{"a":' * 3000 + b"1" + b"}" * 3000,
    b"\0\0\0",
]


def test_results_in_any_order_find_their_requests(desk: DeskDriver, sandbox: Sandbox, api: Api) -> None:
    """By their custom_id alone: the API gives them in no order."""
    run_id, batch_id, ids = api.ended(desk, 5)
    api.body = b"".join(line(ids[n], succeeded(id=f"msg_{n}")) for n in (3, 0, 4, 2, 1))
    ingest(desk, batch_id)
    desk.work_until_over(run_id)
    found = desk.rows("SELECT line->'result'->'message'->>'id' FROM results ORDER BY request_id")
    assert [identifier for (identifier,) in found] == [f"msg_{n}" for n in range(5)]


def test_a_line_that_came_spoiled_is_fetched_again_and_the_others_are_kept(
    desk: DeskDriver, sandbox: Sandbox, api: Api
) -> None:
    desk.change(missing_wait=60)
    run_id, batch_id, ids = api.ended(desk, 3)
    good = [line(identifier, succeeded()) for identifier in ids]
    api.body = good[0] + good[1][:40] + b"\n" + good[2]
    ingest(desk, batch_id)
    assert desk.batch(batch_id).state == "ingesting"
    assert "The results lack 1 requests" in desk.batch(batch_id).reason
    assert "1 lines cannot be read" in desk.batch(batch_id).reason
    assert desk.scalar("SELECT count(*) FROM ledger_lines") == 2
    api.body = b"".join(good)
    ingest(desk, batch_id)
    desk.work_until_over(run_id)
    assert desk.summary(run_id).succeeded == 3
    assert desk.scalar("SELECT count(*) FROM ledger_lines") == 3


def test_lines_that_are_none_stop_nothing(desk: DeskDriver, sandbox: Sandbox, api: Api) -> None:
    run_id, batch_id, ids = api.ended(desk, 3)
    good = [line(identifier, succeeded()) for identifier in ids]
    api.body = b"\n".join(ODD_LINES) + b"\n" + b"".join(good)
    ingest(desk, batch_id)
    assert desk.batch(batch_id).state == "done"
    desk.work_until_over(run_id)
    assert desk.summary(run_id).succeeded == 3


ODD_RESULTS: list[Any] = [
    b'{"type":"succeeded","message":{"model":"m","a":NaN}}',
    b'{"type":"succeeded","message":{"model":"m","a":1e999}}',
    b'{"type":"succeeded","message":{"model":"m","a":' + b"9" * 6000 + b"}}",
    b'{"type":"succeeded","message":{"model":"\\ud800","usage":{"input_tokens":1,"output_tokens":1}}}',
    b'{"type":"succeeded","message":{"model":"\\u0000","usage":{"input_tokens":1,"output_tokens":1}}}',
    b'{"type":"succeeded","message":{"model":"' + b"m" * 10_000 + b'"}}',
    {"type": "succeeded", "message": {}},
    succeeded(usage=None),
    succeeded(usage={"input_tokens": "many", "output_tokens": 1}),
    succeeded(usage={"input_tokens": 10**12, "output_tokens": 1}),
    succeeded(usage={"input_tokens": -1, "output_tokens": 1}),
    succeeded(usage={"input_tokens": 1.5, "output_tokens": True}),
    succeeded(usage={"input_tokens": 1, "output_tokens": 1, "inference_geo": "a\0b"}),
    succeeded(usage={"input_tokens": 1, "output_tokens": 1, "cache_read_input_tokens": 10**15}),
    succeeded(usage={"input_tokens": 1, "output_tokens": 1, "cache_creation": "none"}),
    succeeded(usage={"input_tokens": 1, "output_tokens": 1, "server_tool_use": []}),
    succeeded(stop_reason={"a": 1}),
    succeeded(stop_reason="a\0b"),
    succeeded(content=None),
    succeeded(content="text"),
    succeeded(content=[{"type": "text", "text": "\0"}]),
    {"type": "errored"},
    {"type": "errored", "error": "text"},
    {"type": "errored", "error": {"error": {"type": 5, "message": None}}},
    {"type": "errored", "error": {"error": {"type": "a\0b", "message": "c\0d"}}},
    b'{"type":"errored","error":{"error":{"type":"api_error","message":"\\udfff"}}}',
]


@pytest.fixture
def odd(desk: DeskDriver, api: Api) -> tuple[DeskDriver, list[Any]]:
    """All odd results in one batch, ingested: the driver, and the rows of its requests in their order."""
    desk.change(max_attempts=1)
    run_id, batch_id, ids = api.ended(desk, len(ODD_RESULTS))
    for identifier, result in zip(ids, ODD_RESULTS, strict=True):
        raw = result if isinstance(result, bytes) else orjson.dumps(result)
        api.body += b'{"custom_id":"' + identifier.encode() + b'","result":' + raw + b"}\n"
    desk.change(missing_wait=0)
    ingest(desk, batch_id)
    ingest(desk, batch_id)
    desk.work_until_over(run_id)
    return desk, desk.rows(
        "SELECT r.state, res.line::text AS line, l.cost_usd, l.id AS billed FROM requests r "
        "LEFT JOIN results res ON res.request_id = r.id LEFT JOIN ledger_lines l ON l.request_id = r.id ORDER BY r.id"
    )


def test_odd_results_stop_nothing_and_are_kept_verbatim(odd: tuple[DeskDriver, list[Any]], api: Api) -> None:
    desk, found = odd
    assert [row.state for row in found if row.state in ("pending",)] == []
    sent_lines = api.body.decode().splitlines()
    for row, sent in zip(found, sent_lines, strict=True):
        assert row.line in (sent, None)
    assert [n for n, row in enumerate(found) if row.line is None] == [0]  # NaN is no JSON
    assert desk.scalar("SELECT count(*) FROM runs WHERE state = 'finished'") == 1
    assert len([jsonl_line(row) for row in desk.outputs(1)]) == len(ODD_RESULTS)


def test_an_answer_whose_usage_cannot_be_read_is_unpriced_not_free(odd: tuple[DeskDriver, list[Any]]) -> None:
    _, found = odd
    for row, result in zip(found, ODD_RESULTS, strict=True):
        if not isinstance(result, bytes) and result["type"] == "succeeded":
            usage = result["message"].get("usage")
            sound = usage == {"input_tokens": 10, "output_tokens": 5}
            assert row.billed is not None
            assert (row.cost_usd is not None) == (sound or _only_odd_beside_tokens(usage)), result
    with db.transaction() as tx:
        from webapp.money.ledger import run_totals

        assert run_totals(tx, 1).cost_usd is None


def _only_odd_beside_tokens(usage: Any) -> bool:
    return isinstance(usage, dict) and usage.get("inference_geo") == "a\0b"


@given(st.binary(max_size=200))
def test_parsing_a_line_of_any_bytes_never_raises(raw: bytes) -> None:
    lines.parse(raw)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["succeeded", "errored"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "error", "message"]), inner),
    max_leaves=6,
)


@given(json_values, json_values)
def test_parsing_any_json_never_raises(custom_id: Any, result: Any) -> None:
    import json

    found = lines.parse(json.dumps({"custom_id": custom_id, "result": result}).encode())
    if found is not None and found.kind == "errored":
        from webapp.batches.failures import of_error

        of_error(found.result)


# -- answers that give trouble ---------------------------------------------------------------------------------


LONG_LINES = """
SELECT q.custom_id, r.line::text AS line FROM results r JOIN requests q ON q.id = r.request_id
WHERE length(r.line::text) > :size
"""
MANY = 100  # a kind of nasty answers, of nine, is missing among so many one time in 100,000


def test_nasty_answers_are_stored_and_exported_exactly(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(nasty_share=1, nasty_bytes=200_000)
    run_id = desk.run(documents(MANY), task="summarise")
    summary = desk.summary(run_id)
    assert summary.succeeded and summary.invalid
    assert summary.succeeded + summary.invalid == MANY
    stored = {row.id: row.line for row in desk.rows("SELECT request_id AS id, line::text AS line FROM results")}
    assert any("\\u0000" in raw for raw in stored.values())
    assert any("\\ud800" in raw for raw in stored.values())
    assert any(len(raw) > 200_000 for raw in stored.values())
    for row in desk.outputs(run_id):
        if row.status == "succeeded":
            assert orjson.loads(jsonl_line(row).replace(b"\\ud800", b"?"))["output"]["summary"]
    audit(desk, sandbox)


@pytest.mark.parametrize("size", [5_000_000, MOST_OUTPUT - 1_000])
def test_an_answer_of_5_mb_goes_the_whole_road(desk: DeskDriver, sandbox: Sandbox, size: int) -> None:
    """It is stored whole. An output is made of it up to the bound, exactly; beyond that the reason says so."""
    sandbox.configure(nasty_share=1, nasty_bytes=size)
    run_id = desk.run(documents(MANY), task="summarise")
    written = "long " * (size // 5)
    lines_of = {row.custom_id: row.line for row in desk.rows(LONG_LINES, size=size)}
    assert lines_of
    for row in desk.outputs(run_id):
        if row.custom_id not in lines_of:
            assert len(row.output_json or "") < 1_000
            continue
        answer = orjson.loads(lines_of[row.custom_id])["result"]["message"]["content"][-1]["text"]
        summary = orjson.loads(answer)["summary"]
        assert summary.startswith("<document> Text ") and summary.endswith(f".{written}")
        if size < MOST_OUTPUT:
            assert row.status == "succeeded"
            assert orjson.loads(jsonl_line(row))["output"] == {"summary": summary.strip()}
        else:
            assert row.status == "invalid" and row.output_json is None
            assert f"at most {MOST_OUTPUT:,} are kept" in (row.error or "")
    audit(desk, sandbox)


def test_a_second_paid_answer_is_a_ledger_line_marked_duplicate(desk: DeskDriver, api: Api) -> None:
    run_id, batch_id, ids = api.ended(desk, 2)
    api.body = b"".join(line(identifier, succeeded()) for identifier in ids)
    ingest(desk, batch_id)
    desk.perform_due()
    before = desk.rows("SELECT line::text FROM results ORDER BY request_id")
    desk.execute("UPDATE batches SET api_id = 'msgbatch_other', state = 'ingesting'")
    desk.execute("INSERT INTO steps (step, target_id, due_at) VALUES ('ingest', :id, now())", id=batch_id)
    api.body = b"".join(line(identifier, succeeded(id="other")) for identifier in ids)
    ingest(desk, batch_id)
    assert desk.rows("SELECT duplicate, count(*) FROM ledger_lines GROUP BY 1 ORDER BY 1") == [(False, 2), (True, 2)]
    assert desk.rows("SELECT line::text FROM results ORDER BY request_id") == before
    with db.transaction() as tx:
        from webapp.money.ledger import run_totals

        totals = run_totals(tx, run_id)
    assert totals.cost_usd == 2 * Decimal("0.00000350") and totals.sync_cost_usd == 2 * Decimal("0.0000035")
