"""What goes back over HTTP: JSON answers, the API's errors, streams, and connections that are dropped.

The routes raise `ApiError` or return what is made here; nothing else in the sandbox knows HTTP.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import Any

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request, Response

from .faults import STATUSES, Fault
from .tokens import dumps

#: A refusal the API itself never sends: the proxy in front of it does.
_TOO_LARGE_PAGE = (
    "<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body>\r\n"
    "<center><h1>413 Request Entity Too Large</h1></center>\r\n<hr><center>cloudflare</center>\r\n"
    "</body>\r\n</html>\r\n"
)

_NO_CREDIT = (
    "Your credit balance is too low to access the Anthropic API. "
    "Please go to Plans & Billing to upgrade or purchase credits."
)


class ApiError(Exception):
    """An error answer of the API."""

    def __init__(
        self,
        status: int,
        type: str,  # noqa: A002 - the API's word
        message: str,
        *,
        retry_after: float | None = None,
        error_code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.status, self.type, self.message = status, type, message
        self.error_code = error_code
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["retry-after"] = f"{retry_after:g}"
        super().__init__(message)

    def response(self, request_id: str) -> Response:
        error: dict[str, Any] = {"type": self.type, "message": self.message}
        if self.error_code is not None:
            error["details"] = {"error_code": self.error_code}
        body = {"type": "error", "error": error, "request_id": request_id}
        return json_response(body, self.status, self.headers)


class TooLarge(Exception):
    """The body is over the limit: answered with a page, not with JSON."""


class Dropped(ConnectionAbortedError):
    """The connection was closed on purpose; a server takes it as a client that went away."""


def not_found(message: str) -> ApiError:
    return ApiError(404, "not_found_error", message)


def invalid(message: str) -> ApiError:
    return ApiError(400, "invalid_request_error", message)


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(dumps(body), status=status, headers=headers, content_type="application/json")


def too_large_response() -> Response:
    return Response(_TOO_LARGE_PAGE, status=413, content_type="text/html")


def http_error_response(error: HTTPException, request_id: str) -> Response:
    """What the router refuses, in the API's shape."""
    status = error.code or 500
    kind = "not_found_error" if status == 404 else "invalid_request_error"
    return ApiError(status, kind, "Not found" if status == 404 else str(error.description)).response(request_id)


def fault_error(fault: Fault, should_retry: str) -> ApiError | TooLarge:
    """The error answer a fault asks for."""
    headers = {"x-should-retry": should_retry} if should_retry else {}
    name = fault.name.removesuffix("_after")
    if name == "413":
        return TooLarge()
    if name == "credit":
        return ApiError(400, "invalid_request_error", _NO_CREDIT, headers=headers)
    if name == "spend_cap":
        message = "You have reached your organization's monthly spend limit."
        code = "enforced_spend_limit_reached"
        return ApiError(429, "rate_limit_error", message, error_code=code, headers=headers)
    kind, message = STATUSES[name]
    wait = fault.argument
    if name == "429" and wait is None:
        wait = 1.0
    return ApiError(int(name), kind, message, retry_after=wait, headers=headers)


def drop_connection(request: Request, *, abruptly: bool = False) -> Dropped:
    """Close the connection under the request and give what to raise, so that nothing is answered.

    :param abruptly: the client's next write fails, whatever of the body has been read here.
    """
    connection = _connection(request)
    if abruptly and connection is not None:
        # Nothing lingers: closing resets the connection.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    _shut(request)
    return Dropped("the sandbox dropped the connection, as asked")


def truncated(chunks: Iterable[bytes], size: int, request: Request) -> Iterator[bytes]:
    """So many bytes of the chunks, then the connection is closed in the middle of the body."""
    for chunk in chunks:
        if len(chunk) >= size:
            yield chunk[:size]
            break
        size -= len(chunk)
        yield chunk
    _shut(request)
    raise Dropped("the sandbox cut the stream, as asked")


def peer_is_gone(request: Request, wait: float) -> bool:
    """Wait so many seconds for the client to hang up; whether it did."""
    connection = _connection(request)
    if connection is None:
        return True
    before = connection.gettimeout()
    connection.settimeout(wait)
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return False
    except OSError:
        return True
    finally:
        with contextlib.suppress(OSError):
            connection.settimeout(before)


def _shut(request: Request) -> None:
    connection = _connection(request)
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def _connection(request: Request) -> socket.socket | None:
    found = request.environ.get("werkzeug.socket") or request.environ.get("gunicorn.socket")
    return found if isinstance(found, socket.socket) else None
