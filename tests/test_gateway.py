"""The gateway: every error of the SDK has its place, and a results stream is read as it came."""

from __future__ import annotations

import importlib
import pkgutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import anthropic
import httpx2
import orjson
import pytest
from support.sandbox import API_KEY, Sandbox
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from webapp.errors import ApiAccount, ApiError, ApiNotFound, ApiRefused, ApiThrottled, ApiTooLarge, ApiUnclear
from webapp.gateway import ApiBatch, Gateway, mapped

REQUEST = httpx2.Request("POST", "http://127.0.0.1/v1/messages/batches")


def subclasses(kind: type) -> Iterator[type]:
    for one in kind.__subclasses__():
        yield one
        yield from subclasses(one)


for found in pkgutil.walk_packages(anthropic.types.__path__, "anthropic.types."):
    if found.name.endswith("_error"):
        importlib.import_module(found.name)
STATUS_ERRORS = sorted(
    {*subclasses(anthropic.APIStatusError), anthropic.APIStatusError}, key=lambda kind: kind.__name__
)
OTHER_ERRORS = sorted(
    set(subclasses(anthropic.AnthropicError)) - set(STATUS_ERRORS) | {anthropic.AnthropicError},
    key=lambda kind: kind.__name__,
)
HTTP_ERRORS = sorted(
    {kind for base in (httpx2.HTTPError, httpx2.StreamError) for kind in (base, *subclasses(base))},
    key=lambda kind: kind.__name__,
)


def status_error(
    status: int, *, code: str | None = None, message: str = "no", kind: type = anthropic.APIStatusError, **headers: str
) -> Any:
    error: dict[str, Any] = {"type": "some_error", "message": message}
    if code:
        error["details"] = {"error_code": code}
    body = {"type": "error", "error": error, "request_id": "req_1"}
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    response = httpx2.Response(status, json=body, headers=sent, request=REQUEST)
    return kind("words of the SDK", response=response, body=body)


# -- errors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STATUS_ERRORS, ids=lambda kind: kind.__name__)
def test_each_status_error_of_the_sdk_is_certain_or_not_as_its_status_says(kind: Any) -> None:
    status = getattr(kind, "status_code", None) or 500
    error = mapped(status_error(status, kind=kind))
    certain = 400 <= status < 500 and status not in (408, 409, 499)
    assert isinstance(error, ApiRefused) is certain
    assert isinstance(error, ApiUnclear) is not certain
    assert (error.status, error.type, str(error)) == (status, "some_error", "no")


@pytest.mark.parametrize("kind", OTHER_ERRORS, ids=lambda kind: kind.__name__)
def test_each_error_of_the_sdk_without_an_answer_is_ours_too(kind: Any) -> None:
    error = mapped(_made(kind))
    assert type(error) in (ApiUnclear, ApiAccount)
    assert isinstance(error, ApiAccount) is issubclass(kind, anthropic.CredentialsError)


def _made(kind: Any) -> Exception:
    """One error of a class, by whichever of the SDK's constructors it has."""
    response = httpx2.Response(200, request=REQUEST)
    for make in (
        lambda: kind("words"),
        lambda: kind(request=REQUEST),
        lambda: kind("words", request=REQUEST, body=None),
        lambda: kind(response=response, body=None),
    ):
        try:
            made: Exception = make()
        except (TypeError, AttributeError):
            continue
        return made
    bare: Exception = kind.__new__(kind)
    return bare


@pytest.mark.parametrize("kind", HTTP_ERRORS, ids=lambda kind: kind.__name__)
def test_each_error_of_the_http_library_is_unclear(kind: Any) -> None:
    """While a stream is read, they come through the SDK as they are."""
    error = kind.__new__(kind)
    Exception.__init__(error, "words")
    assert type(mapped(error)) is ApiUnclear


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ApiRefused),
        (401, ApiAccount),
        (402, ApiAccount),
        (403, ApiAccount),
        (404, ApiNotFound),
        (408, ApiUnclear),
        (409, ApiUnclear),
        (413, ApiTooLarge),
        (422, ApiRefused),
        (429, ApiThrottled),
        (499, ApiUnclear),
        (500, ApiUnclear),
        (501, ApiUnclear),
        (503, ApiUnclear),
        (504, ApiUnclear),
        (529, ApiUnclear),
        (302, ApiUnclear),
        (307, ApiUnclear),
        (999, ApiUnclear),
    ],
)
def test_a_status_means_what_rule_3_says(status: int, kind: type) -> None:
    assert type(mapped(status_error(status))) is kind


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (429, "enforced_spend_limit_reached", ApiAccount),
        (429, "contract_spend_limit_reached", ApiAccount),
        (429, "ramp_limit_exceeded", ApiThrottled),
        (400, "organization_on_hold", ApiAccount),
        (400, "cmek_key_disabled", ApiAccount),
        (400, "claude_code_key_creator_not_member", ApiAccount),
        (402, "linked_organization_billing_unavailable", ApiAccount),
        (503, "cmek_key_unreachable", ApiUnclear),
        (400, "request_body_timeout", ApiUnclear),
        (400, "user_profile_required", ApiRefused),
    ],
)
def test_a_code_says_whom_it_concerns(status: int, code: str, kind: type) -> None:
    error = mapped(status_error(status, code=code))
    assert type(error) is kind
    assert error.error_code == code


def test_missing_credit_is_a_matter_of_the_account() -> None:
    """I11: it arrives as invalid_request_error."""
    message = "Your credit balance is too low to access the Anthropic API."
    assert type(mapped(status_error(400, message=message))) is ApiAccount


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("5", 5.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("1e12", 86_400.0),
        ("inf", None),
        ("nan", None),
        ("soon", None),
        ("", None),
        ("Mon, 01 Jan 2001 00:00:00 GMT", 0.0),
        ("Mon, 01 Jan 2001 00:00:00 -0000", 0.0),
    ],
)
def test_retry_after_is_a_number_of_seconds_or_a_date(header: str, seconds: float | None) -> None:
    assert mapped(status_error(429, retry_after=header)).retry_after == seconds


def test_retry_after_as_a_date_to_come_is_the_time_until_then() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 90 < (mapped(status_error(429, retry_after=date)).retry_after or 0) <= 100


# -- a server that answers what a test says --------------------------------------------------------------------


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_: Any) -> None:
        pass


class Server:
    """Answers each request with `answer`, and remembers them."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.seen: list[Any] = []
        self._server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=_Handler)
        self.url = f"http://127.0.0.1:{self._server.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def __call__(self, environ: Any, start_response: Any) -> Any:
        request = Request(environ)
        self.seen.append((request.method, request.full_path.rstrip("?"), dict(request.headers), request.get_data()))
        return self.answer(environ, start_response)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()


@contextmanager
def serving(answer: Any) -> Iterator[Server]:
    server = Server(answer)
    try:
        yield server
    finally:
        server.close()


BATCH = {
    "id": "msgbatch_1",
    "type": "message_batch",
    "processing_status": "in_progress",
    "request_counts": {"processing": 2, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0},
    "ended_at": None,
    "created_at": "2026-09-24T18:37:24.100435Z",
    "expires_at": "2026-09-25T18:37:24.100435Z",
    "archived_at": None,
    "cancel_initiated_at": None,
    "results_url": None,
}


def json_answer(value: Any) -> Response:
    return Response(orjson.dumps(value), content_type="application/json")


def api_batch(results_url: str | None = None) -> ApiBatch:
    now = datetime.now(UTC)
    return ApiBatch("msgbatch_1", "ended", {}, now, now, now, None, results_url)


def read(gateway: Gateway, batch: ApiBatch) -> list[bytes]:
    with gateway.results(batch) as lines:
        return list(lines)


# -- results ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (b"", []),
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\nb", [b"a", b"b"]),
        (b"\n\na\n\n", [b"", b"", b"a", b""]),
        ("x\u2028y\u0085z\u2029\x0b\x0c\x1c\n".encode(), ["x\u2028y\u0085z\u2029\x0b\x0c\x1c".encode()]),
        (b"a\r\nb\r\n", [b"a\r", b"b\r"]),
        (b"x" * 3_000_000 + b"\n" + b"y" * 600_000 + b"\n", [b"x" * 3_000_000, b"y" * 600_000]),
    ],
)
def test_results_are_split_at_line_feeds_and_nowhere_else(body: bytes, lines: list[bytes]) -> None:
    with serving(Response(body, content_type="application/x-jsonl")) as server:
        assert read(Gateway(api_key="k", base_url=server.url), api_batch()) == lines


@pytest.mark.parametrize(
    ("prefix", "results_url", "path"),
    [
        ("", None, "/v1/messages/batches/msgbatch_1/results"),
        ("", "https://api.anthropic.com/v1/messages/batches/msgbatch_1/results", None),
        ("", "/v1/messages/batches/msgbatch_1/results", None),
        ("", "https://elsewhere.example/other/path", "/other/path"),
        ("/proxy", None, "/proxy/v1/messages/batches/msgbatch_1/results"),
        ("/proxy", "https://api.anthropic.com/v1/messages/batches/b/results", "/proxy/v1/messages/batches/b/results"),
        ("/proxy", "http://x/proxy/v1/messages/batches/b/results", "/proxy/v1/messages/batches/b/results"),
        ("/proxy/", "/v1/results", "/proxy/v1/results"),
    ],
)
def test_results_are_read_from_our_own_origin_only(prefix: str, results_url: str | None, path: str | None) -> None:
    with serving(Response(b"a\n")) as server:
        assert read(Gateway(api_key="k", base_url=server.url + prefix), api_batch(results_url)) == [b"a"]
        assert [seen[1] for seen in server.seen] == [path or "/v1/messages/batches/msgbatch_1/results"]


def test_a_stream_that_is_cut_is_unclear_after_the_lines_that_came(sandbox: Sandbox) -> None:
    gateway = Gateway(api_key=API_KEY, base_url=sandbox.url)
    batch = gateway.create(iter([body_of(50)]), len(body_of(50)))
    sandbox.configure(results_faults="truncate:2000")
    gateway.retrieve(batch.id)
    with pytest.raises(ApiUnclear), gateway.results(batch) as lines:
        list(lines)


# -- create ----------------------------------------------------------------------------------------------------


def body_of(count: int) -> bytes:
    params = {"model": "claude-haiku-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hello"}]}
    return orjson.dumps({"requests": [{"custom_id": f"c{n}", "params": params} for n in range(count)]})


def test_an_exception_of_the_body_is_raised_as_it_is_and_nothing_is_created(sandbox: Sandbox) -> None:
    class Stopped(Exception):
        pass

    def body() -> Iterator[bytes]:
        yield body_of(2)[:-2]
        raise Stopped("held back")

    gateway = Gateway(api_key=API_KEY, base_url=sandbox.url)
    with pytest.raises(Stopped):
        gateway.create(body(), len(body_of(2)))
    assert sandbox.bill()["batches"] == []


@pytest.mark.parametrize("extra", [-1, 1])
def test_a_body_of_another_length_than_told_creates_nothing(sandbox: Sandbox, extra: int) -> None:
    gateway = Gateway(api_key=API_KEY, base_url=sandbox.url)
    with pytest.raises(ApiUnclear):
        gateway.create(iter([body_of(2)]), len(body_of(2)) + extra)
    assert sandbox.bill()["batches"] == []


def test_a_create_is_one_post_of_known_length_with_the_key(sandbox: Sandbox) -> None:
    body = body_of(2)
    with serving(json_answer(BATCH)) as server:
        created = Gateway(api_key="the-key", base_url=server.url).create(iter([body[:9], body[9:]]), len(body))
        ((method, path, headers, received),) = server.seen
    assert (method, path, received) == ("POST", "/v1/messages/batches", body)
    assert headers["Content-Length"] == str(len(body))
    assert "Transfer-Encoding" not in headers
    assert headers["Authorization"] == "Bearer the-key"
    assert headers["Content-Type"] == "application/json"
    assert (created.id, created.total, created.ended) == ("msgbatch_1", 2, False)


@pytest.mark.parametrize("status", [500, 529, 429, 408, 409, 307, 302])
def test_a_create_is_never_repeated_whatever_the_answer(status: int) -> None:
    answer = Response("{}", status, {"x-should-retry": "true", "location": "/v1/messages/batches"})
    with serving(answer) as server:
        with pytest.raises(ApiError):
            Gateway(api_key="k", base_url=server.url).create(iter([b"{}"]), 2)
        assert len(server.seen) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b"<html>",
        b'{"id":""}',
        b'{"id":5}',
        b'{"id":"msgbatch_1"}',
        orjson.dumps(BATCH | {"created_at": "soon"}),
        orjson.dumps(BATCH | {"request_counts": None}),
        orjson.dumps(BATCH | {"request_counts": {"processing": "two"}}),
        orjson.dumps(BATCH | {"request_counts": 5}),
        orjson.dumps(BATCH | {"expires_at": "later"}),
        orjson.dumps(BATCH | {"ended_at": {}}),
        orjson.dumps(BATCH | {"results_url": 5}),
        orjson.dumps(BATCH | {"processing_status": None}),
    ],
)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_an_answer_that_is_no_batch_is_unclear(answer: bytes) -> None:
    with serving(Response(answer, content_type="application/json")) as server:
        gateway = Gateway(api_key="k", base_url=server.url)
        with pytest.raises(ApiUnclear):
            gateway.create(iter([b"{}"]), 2)
        with pytest.raises(ApiUnclear):
            gateway.retrieve("msgbatch_1")


def test_silence_after_the_body_is_unclear() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted: list[socket.socket] = []

        def hang_up() -> None:
            connection, _ = server.accept()
            connection.recv(65_536)
            accepted.append(connection)
            connection.close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        with pytest.raises(ApiUnclear):
            Gateway(api_key="k", base_url=f"http://127.0.0.1:{server.getsockname()[1]}").create(iter([b"{}"]), 2)
        thread.join(5)


def test_nobody_there_is_unclear() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ApiUnclear, match="connection"):
        Gateway(api_key="k", base_url=f"http://127.0.0.1:{port}").identify()


# -- who and which ---------------------------------------------------------------------------------------------


def test_who_we_are_is_read_from_the_answers_headers() -> None:
    page = json_answer({"data": [], "has_more": False, "first_id": None, "last_id": None})
    page.headers["anthropic-organization-id"] = "org"
    page.headers["anthropic-workspace-id"] = "wrkspc_1"
    with serving(page) as server:
        identity = Gateway(api_key="k", base_url=server.url + "/prefix/").identify()
        assert server.seen[0][1] == "/prefix/v1/messages/batches?limit=1"
    assert (identity.organization_id, identity.workspace_id) == ("org", "wrkspc_1")
    assert identity.base_url == server.url + "/prefix"
    assert abs(identity.api_time - datetime.now(UTC)) < timedelta(seconds=5)
    assert identity.api_time.tzinfo is not None


def test_an_api_that_does_not_say_who_we_are_is_no_fault() -> None:
    with serving(json_answer({"data": [], "has_more": False, "first_id": None, "last_id": None})) as server:
        identity = Gateway(api_key="k", base_url=server.url, name="sandbox:").identify()
    assert (identity.organization_id, identity.workspace_id, identity.base_url) == (None, None, "sandbox:")


def test_pages_go_back_in_time_until_the_list_is_complete(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webapp.gateway.PAGE", 2)
    gateway = Gateway(api_key=API_KEY, base_url=sandbox.url)
    made = [gateway.create(iter([body_of(n)]), len(body_of(n))).id for n in range(1, 6)]
    pages = list(gateway.pages())
    assert [batch.id for page in pages for batch in page.batches] == made[::-1]
    assert [page.complete for page in pages] == [False, False, True]


def test_a_page_that_does_not_say_whether_there_is_more_is_not_complete() -> None:
    with serving(json_answer({"data": [BATCH], "first_id": None, "last_id": None})) as server:
        (page,) = Gateway(api_key="k", base_url=server.url).pages()
    assert not page.complete


def test_a_batch_of_another_key_is_not_found(sandbox: Sandbox) -> None:
    """I22: not found for this key, which is another thing than lost."""
    theirs = Gateway(api_key="ws:theirs:k", base_url=sandbox.url)
    batch = theirs.create(iter([body_of(1)]), len(body_of(1)))
    ours = Gateway(api_key=API_KEY, base_url=sandbox.url)
    for call in (ours.retrieve, ours.cancel):
        with pytest.raises(ApiNotFound):
            call(batch.id)
    with pytest.raises(ApiNotFound), ours.results(batch) as lines:
        list(lines)


def test_a_key_never_shows_in_a_gateways_text() -> None:
    assert "secret-key" not in repr(Gateway(api_key="secret-key", base_url="http://127.0.0.1:9"))


def test_credentials_in_the_address_are_used_and_not_told() -> None:
    """What an identity says is stored and shown."""
    with serving(json_answer({"data": [], "has_more": False, "first_id": None, "last_id": None})) as server:
        identity = Gateway(api_key="k", base_url=server.url.replace("//", "//me:hunter2@") + "/prefix/").identify()
        assert server.seen[0][2]["Authorization"].startswith("Basic ")
    assert identity.base_url == server.url + "/prefix"


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "no proxy at all"])
def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    assert Gateway(api_key=API_KEY, base_url=sandbox.url).identify().base_url == sandbox.url


def test_a_proxy_of_the_environment_is_asked_for_any_other_address(monkeypatch: pytest.MonkeyPatch) -> None:
    page = json_answer({"data": [], "has_more": False, "first_id": None, "last_id": None})
    with serving(page) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        Gateway(api_key="k", base_url="http://api.invalid").identify()
        assert proxy.seen[0][2]["Host"] == "api.invalid"


# -- counting --------------------------------------------------------------------------------------------------

HI = b'{"model": "claude-haiku-4-5", "messages": [{"role": "user", "content": "Hi"}]}'


def test_tokens_are_counted_and_what_was_heard_before_stays(sandbox: Sandbox) -> None:
    gateway = Gateway(api_key=API_KEY, base_url=sandbox.url)
    assert gateway.count_tokens(HI, seconds=30) == 13
    assert not gateway.heard.answered and gateway.heard.trouble is None


@pytest.mark.parametrize(
    ("fault", "kind"), [("403", ApiAccount), ("429:5", ApiThrottled), ("529", ApiUnclear), ("garbled", ApiUnclear)]
)
def test_what_cannot_be_counted_is_an_error_of_ours(sandbox: Sandbox, fault: str, kind: type[ApiError]) -> None:
    sandbox.configure(count_faults=fault)
    gateway = Gateway(api_key=API_KEY, base_url=sandbox.url)
    with pytest.raises(kind):
        gateway.count_tokens(HI, seconds=30)
    assert gateway.heard.trouble is None


def test_a_count_that_takes_too_long_is_given_up(sandbox: Sandbox) -> None:
    sandbox.configure(count_faults="timeout_after:60")
    with pytest.raises(ApiUnclear):
        Gateway(api_key=API_KEY, base_url=sandbox.url).count_tokens(HI, seconds=0.2)
