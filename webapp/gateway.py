"""The only importer of `anthropic`: six verbs of the Message Batches API and `count_tokens`; its errors become ours.
The steps call it, never inside a transaction; it knows no table. A page asks it to count, and nothing else.

The SDK's own retries are off: `create` would POST three times and pay three times, and the other verbs are repeated by
their steps. The SDK is imported where it is used: loading it takes longer than most pages and commands.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx2

from webapp import headers
from webapp.errors import ApiAccount, ApiError, ApiNotFound, ApiRefused, ApiThrottled, ApiTooLarge, ApiUnclear
from webapp.settings import API_REQUEST_TIMEOUT, is_loopback, without_credentials

if TYPE_CHECKING:
    import anthropic

BATCHES = "/v1/messages/batches"
COUNT = "/v1/messages/count_tokens"
PAGE = 1000  # the API's largest list page
READ_CHUNK = 1 << 18
COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")
# Client errors that do not tell whether it was done, or were the network's: timeouts, conflict, and "the client has
# gone" of a proxy on the way. What was not done after all is only sent later.
NOT_CERTAIN = (408, 409, 499)
NOT_CERTAIN_CODES = ("request_body_timeout",)
RAW_STREAM = {"X-Stainless-Raw-Response": "stream", "Accept": "application/binary"}
RAW_PARSED = {"X-Stainless-Raw-Response": "raw"}

# What the SDK raises, without a word of its own, over an answer that is no JSON, no text, or JSON of another shape.
UNREADABLE = (ValueError, AttributeError, TypeError)

# error.details.error_code of failures that only a person can end, whatever their status says.
ACCOUNT_CODES = (
    "enforced_spend_limit_reached", "contract_spend_limit_reached", "organization_on_hold",
    "claude_code_key_creator_not_member", "organization_type_not_supported", "parent_organization_required",
)  # fmt: skip
ACCOUNT_CODE_PREFIXES = ("linked_organization_", "cmek_")
# Arrives as invalid_request_error, but is a matter of credit (seen by others: thousands failed as "fix").
ACCOUNT_TEXTS = ("credit balance is too low",)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose key this is, and what time it is there."""

    base_url: str
    organization_id: str | None
    workspace_id: str | None
    api_time: datetime


@dataclass(frozen=True, slots=True)
class ApiBatch:
    """A Message Batch as the API describes it."""

    id: str
    processing_status: str
    counts: dict[str, int]
    created_at: datetime
    ended_at: datetime | None
    expires_at: datetime
    archived_at: datetime | None
    results_url: str | None

    @property
    def total(self) -> int:
        """Requests in the batch, in whatever state."""
        return sum(self.counts.values())

    @property
    def ended(self) -> bool:
        return self.processing_status == "ended"


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the list, newest first; `complete` when nothing older exists."""

    batches: tuple[ApiBatch, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class Heard:
    """What the last call came to: an answer (a refusal is one too), or the trouble it met; neither: none was made."""

    answered: bool = False
    trouble: ApiUnclear | None = None


class Gateway:
    """One account's way to the API. Holds no open connection until its first call."""

    def __init__(self, *, api_key: str, base_url: str | None, name: str | None = None) -> None:
        """
        :param base_url: None for the SDK's own.
        :param name: what to call the address in an account (the sandbox moves from port to port).
        """
        import anthropic

        self._client = anthropic.Anthropic(
            api_key=api_key,
            base_url=base_url,
            max_retries=0,
            timeout=httpx2.Timeout(API_REQUEST_TIMEOUT, connect=10.0),
            http_client=_client(base_url),
        )
        self.heard = Heard()
        self._name = name or without_credentials(str(self._client.base_url)).rstrip("/")

    def close(self) -> None:
        """Let go of its connections; it must not be called any more."""
        self._client.close()

    @contextmanager
    def _call(self) -> Iterator[None]:
        try:
            with _mapped():
                yield
        except ApiUnclear as error:
            self.heard = Heard(trouble=error)
            raise
        except ApiRefused:
            self.heard = Heard(answered=True)
            raise
        self.heard = Heard(answered=True)

    def identify(self) -> Identity:
        """Ask the API who we are (one list call of one batch); also proves that the key works."""
        with self._call():
            answer = self._client.messages.batches.with_raw_response.list(limit=1)
        return Identity(
            base_url=self._name,
            organization_id=answer.headers.get("anthropic-organization-id"),
            workspace_id=answer.headers.get("anthropic-workspace-id"),
            api_time=_date(answer.headers.get("date")),
        )

    def create(self, body: Iterator[bytes], length: int) -> ApiBatch:
        """One POST of a batch, streamed, never retried.

        :param body: the JSON body in pieces, `length` bytes in all. An exception raised by it ends the
            POST before the body is complete, so that nothing was created, and is raised here as it is.
        :raises ApiRefused: certainly not created.
        :raises ApiUnclear: created or not: unknown, if the body was sent to its end.
        """
        from anthropic.types.messages import MessageBatch

        watched, before = _Watched(body), self.heard
        options: Any = {"headers": {"Content-Type": "application/json", "Content-Length": str(length)}}
        try:
            with self._call():
                answer: Any = self._client.post(BATCHES, cast_to=MessageBatch, content=watched, options=options)
            return _batch(answer)
        except ApiError:
            if watched.error is not None:
                self.heard = before  # the API had no part in it
                raise watched.error from None
            raise

    def retrieve(self, api_id: str) -> ApiBatch:
        """The batch as it stands now.

        :raises ApiNotFound: not known to this key.
        """
        with self._call():
            return _batch(self._client.messages.batches.retrieve(api_id))

    def pages(self) -> Iterator[Page]:
        """All batches of the workspace, newest first, a page of up to 1,000 per call."""
        from anthropic import omit

        after: Any = omit
        while True:
            with self._call():
                page = self._client.messages.batches.list(limit=PAGE, after_id=after)
                batches = tuple(_batch(one) for one in page.data)
                complete = page.has_more is False
            yield Page(batches, complete)
            if complete or not page.last_id:
                return
            after = page.last_id

    def cancel(self, api_id: str) -> ApiBatch:
        """Ask the API to cancel; a batch that ended in between answers with 400 or 409 (`ApiError`)."""
        with self._call():
            return _batch(self._client.messages.batches.cancel(api_id))

    def count_tokens(self, request: bytes, *, seconds: float) -> int:
        """How many tokens the prompt of one Messages request has; costs nothing. What was `heard` stays as it is.

        :param request: JSON with what counts: no max_tokens.
        :param seconds: that the answer may take.
        """
        from anthropic.types import MessageTokensCount

        limits: Any = {"headers": {"Content-Type": "application/json"}, "timeout": seconds}
        with _mapped():
            answer: Any = self._client.post(COUNT, cast_to=MessageTokensCount, content=request, options=limits)
            if not isinstance(answer.input_tokens, int):
                raise ApiUnclear("The API counted tokens and told no number.")
            return int(answer.input_tokens)

    @contextmanager
    def results(self, batch: ApiBatch) -> Iterator[Iterator[bytes]]:
        """Open the results stream: an iterator of lines as they came, without their newline.

        The address is the path of `results_url` on our own origin, so that the key goes nowhere else.
        The last line may be cut when the stream was: iterating then raises `ApiUnclear` after it.
        """
        url = self._own_origin(batch.results_url or f"{BATCHES}/{batch.id}/results")
        with self._call():
            answer: Any = self._client.get(url, cast_to=object, options={"headers": dict(RAW_STREAM)})
        try:
            yield self._lines(answer.iter_bytes(READ_CHUNK))
        finally:
            answer.close()

    def _lines(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Split on newlines only: `iter_lines` would also split on U+2028 within a string."""
        rest: list[bytes] = []
        with self._call():
            for piece in pieces:
                first, *others = piece.split(b"\n")
                rest.append(first)
                if others:
                    yield b"".join(rest)
                    yield from others[:-1]
                    rest = [others[-1]]
        if any(rest):
            yield b"".join(rest)

    def _own_origin(self, url: str) -> str:
        base = urlsplit(str(self._client.base_url))
        path = urlsplit(url).path
        prefix = base.path.rstrip("/")
        if prefix and not path.startswith(prefix + "/"):
            path = prefix + path
        return f"{base.scheme}://{base.netloc}{path}"


def _client(base_url: str | None) -> httpx2.Client:
    """An HTTP client that follows no redirect: a redirected POST would be sent twice."""
    import anthropic

    if base_url is not None and is_loopback(base_url):
        # A proxy of the environment does not reach this machine's own addresses. The SDK's client reads the
        # environment's proxies whatever it is told.
        return httpx2.Client(follow_redirects=False, trust_env=False, verify=_certificates())
    return anthropic.DefaultHttpxClient(follow_redirects=False)


@cache
def _certificates() -> ssl.SSLContext:
    """Whom to trust. Read once: that takes longer than many calls to a server of this machine."""
    return httpx2.create_ssl_context(trust_env=False)


class _Watched:
    """The body of a POST that remembers its own failure: the SDK hides it behind a connection error.

    Iterable once only, on purpose: a second attempt would have nothing to send.
    """

    def __init__(self, body: Iterator[bytes]) -> None:
        self._body = body
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._body
        except Exception as error:
            self.error = error
            raise


def _batch(answer: Any) -> ApiBatch:
    from anthropic.types.messages import MessageBatch

    if not isinstance(answer, MessageBatch) or not isinstance(answer.id, str) or not answer.id:
        raise ApiUnclear("The API answered with something that is no Message Batch.")
    counts = {name: getattr(answer.request_counts, name, None) for name in COUNTS}
    # The SDK builds its objects of whatever came.
    sound = (
        isinstance(answer.processing_status, str)
        and all(isinstance(count, int | None) for count in counts.values())
        and any(isinstance(count, int) for count in counts.values())
        and isinstance(answer.created_at, datetime)
        and isinstance(answer.expires_at, datetime)
        and isinstance(answer.ended_at, datetime | None)
        and isinstance(answer.archived_at, datetime | None)
        and isinstance(answer.results_url, str | None)
    )
    if not sound:
        raise ApiUnclear(f"The API's answer about batch {answer.id} is not what its documentation says.")
    return ApiBatch(
        id=answer.id,
        processing_status=answer.processing_status,
        counts={name: int(count or 0) for name, count in counts.items()},
        created_at=answer.created_at,
        ended_at=answer.ended_at,
        expires_at=answer.expires_at,
        archived_at=answer.archived_at,
        results_url=answer.results_url,
    )


def _date(header: str | None) -> datetime:
    return headers.moment(header) or datetime.now(UTC)


@contextmanager
def _mapped() -> Iterator[None]:
    import anthropic

    try:
        yield
    except (anthropic.AnthropicError, httpx2.HTTPError, httpx2.StreamError, *UNREADABLE) as error:
        raise mapped(error) from error


def mapped(error: Exception) -> ApiError:
    """Our error for one of the SDK's (or of httpx2, which it lets through while a stream is read)."""
    import anthropic

    if isinstance(error, anthropic.APIStatusError):
        return _mapped_status(error)
    if isinstance(error, anthropic.APITimeoutError | httpx2.TimeoutException):
        return ApiUnclear("The API did not answer in time.")
    if isinstance(error, anthropic.APIConnectionError | httpx2.HTTPError):
        cause = error.__cause__ or error
        return ApiUnclear(f"The connection to the API failed: {str(cause).rstrip('.') or type(cause).__name__}.")
    if isinstance(error, anthropic.CredentialsError):
        return ApiAccount(f"The API key cannot be used: {error}.")
    if isinstance(error, UNREADABLE):
        return ApiUnclear("The API's answer cannot be read: it is no JSON, or not what was asked for.")
    if isinstance(error, anthropic.APIResponseValidationError):
        return ApiUnclear("The API's answer cannot be read.", status=error.status_code)
    return ApiUnclear(f"The API call failed: {error or type(error).__name__}.")


def _mapped_status(error: anthropic.APIStatusError) -> ApiError:
    status = error.status_code
    kind: type[ApiError] = ApiUnclear
    message = error.api_message or f"The API answered with status {status}."
    if _is_account(status, error.error_code, message):
        kind = ApiAccount
    elif status == 429:
        kind = ApiThrottled
    elif status == 413:
        kind = ApiTooLarge
    elif status == 404:
        kind = ApiNotFound
    elif 400 <= status < 500 and status not in NOT_CERTAIN and error.error_code not in NOT_CERTAIN_CODES:
        kind = ApiRefused
    return kind(
        message,
        status=status,
        type=error.type,
        error_code=error.error_code,
        request_id=error.request_id,
        retry_after=headers.retry_after(error.response.headers.get("retry-after")),
    )


def _is_account(status: int, code: str | None, message: str) -> bool:
    if status in (401, 402, 403):
        return True
    if not 400 <= status < 500:
        return False
    code = code or ""
    known = code in ACCOUNT_CODES or code.startswith(ACCOUNT_CODE_PREFIXES)
    return known or any(text in message.lower() for text in ACCOUNT_TEXTS)
