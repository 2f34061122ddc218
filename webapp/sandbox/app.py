"""The sandbox as a WSGI application: the Message Batches API's endpoints under ``/v1``, its controls beside.

`create_sandbox` makes one for a folder; any threaded WSGI server can serve it, one process to a folder.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from .access import ORGANIZATION_ID, Caller, RateLimiter, identify
from .batches import BatchRoutes
from .clock import Clock
from .config import SandboxConfig
from .control import ControlRoutes
from .faults import Fault
from .hashing import identifier
from .messages import ModelRoutes
from .replies import (
    ApiError,
    TooLarge,
    drop_connection,
    fault_error,
    http_error_response,
    peer_is_gone,
    too_large_response,
)
from .state import State
from .store import Store

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_ROUTES = Map(
    [
        Rule("/v1/messages/batches", methods=["POST"], endpoint="create"),
        Rule("/v1/messages/batches", methods=["GET"], endpoint="list_batches"),
        Rule("/v1/messages/batches/<batch_id>", methods=["GET"], endpoint="retrieve"),
        Rule("/v1/messages/batches/<batch_id>", methods=["DELETE"], endpoint="delete"),
        Rule("/v1/messages/batches/<batch_id>/cancel", methods=["POST"], endpoint="cancel"),
        Rule("/v1/messages/batches/<batch_id>/results", methods=["GET"], endpoint="results"),
        Rule("/v1/messages/count_tokens", methods=["POST"], endpoint="count_tokens"),
        Rule("/v1/models", methods=["GET"], endpoint="list_models"),
        Rule("/v1/models/<model_id>", methods=["GET"], endpoint="retrieve_model"),
        Rule("/sandbox/clock", methods=["GET"], endpoint="read_clock"),
        Rule("/sandbox/clock", methods=["POST"], endpoint="advance_clock"),
        Rule("/sandbox/config", methods=["GET"], endpoint="read_config"),
        Rule("/sandbox/config", methods=["POST"], endpoint="change_config"),
        Rule("/sandbox/bill", methods=["GET"], endpoint="bill"),
        Rule("/sandbox/accepted", methods=["GET"], endpoint="accepted"),
        Rule("/sandbox/batches/<batch_id>/requests", methods=["GET"], endpoint="requests"),
    ],
    # An id with a slash or an empty one is no route, not a redirect to another.
    strict_slashes=False,
    redirect_defaults=False,
    merge_slashes=False,
)

#: Endpoints that commit faults, and the setting that lists them.
_FAULTY = {
    "create": "create_faults",
    "list_batches": "list_faults",
    "retrieve": "retrieve_faults",
    "results": "results_faults",
    "cancel": "cancel_faults",
    "count_tokens": "count_faults",
}
#: Seconds a ``timeout_after`` keeps its client waiting when it says no number.
_HANG = 30.0


class SandboxApp:
    """A WSGI application; made by `create_sandbox`."""

    def __init__(self, folder: Path, config: SandboxConfig) -> None:
        self._store = Store(folder)
        self._state = State(self._store, Clock(self._store), config)
        self._limiter = RateLimiter()
        self._routes = (BatchRoutes(self._state), ModelRoutes(), ControlRoutes(self._state))

    def close(self) -> None:
        """Close the store; the app must not be called any more."""
        self._store.close()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        headers = {
            "request-id": identifier("req_"),
            "anthropic-organization-id": ORGANIZATION_ID,
            "date": format_datetime(self._state.clock.now(), usegmt=True),
            "batchdesk-sandbox": "true",
        }
        response = self._answer(request, headers)
        for name, value in headers.items():
            response.headers[name] = value
        return response(environ, start_response)

    def _answer(self, request: Request, headers: dict[str, str]) -> Response:
        """The response to a request; what it learns on the way goes into `headers`."""
        try:
            caller = identify(request)
            headers["anthropic-workspace-id"] = caller.workspace_id
            endpoint, arguments = _ROUTES.bind_to_environ(request.environ).match()
            if not request.path.startswith("/sandbox/"):
                limit, now = self._state.config.rpm, self._state.clock.now()
                # Counting tokens has a limit of its own, as large here as that of the batches.
                bucket = f"{caller.workspace} counting" if endpoint == "count_tokens" else caller.workspace
                headers.update(self._limiter.take(bucket, limit, now))
            return self._perform(request, caller, endpoint, dict(arguments))
        except ApiError as error:
            return error.response(headers["request-id"])
        except TooLarge:
            return too_large_response()
        except HTTPException as error:
            return http_error_response(error, headers["request-id"])

    def _perform(self, request: Request, caller: Caller, endpoint: str, arguments: dict[str, Any]) -> Response:
        faults = self._state.take_faults(_FAULTY[endpoint]) if endpoint in _FAULTY else []
        for fault in faults:
            self._fail_before(request, fault)
        owner = next(routes for routes in self._routes if hasattr(routes, endpoint))
        response: Response = getattr(owner, endpoint)(request, caller, faults=faults, **arguments)
        for fault in faults:
            response = self._fail_after(request, response, fault)
        return response

    def _fail_before(self, request: Request, fault: Fault) -> None:
        """Commit a fault that keeps the call from being carried out."""
        if fault.name == "drop_early":
            raise drop_connection(request, abruptly=True)
        if fault.name == "drop_before":
            while request.stream.read(1 << 20):
                pass
            raise drop_connection(request)
        if fault.name in ("413", "credit", "spend_cap") or fault.name.isdigit():
            raise fault_error(fault, self._state.config.should_retry)

    def _fail_after(self, request: Request, response: Response, fault: Fault) -> Response:
        """Commit a fault that spoils the answer of a call that was carried out."""
        if fault.name in ("500_after", "529_after"):
            raise fault_error(fault, self._state.config.should_retry)
        if fault.name == "garbled":
            return Response("<html>it was done, but this does not tell</html>", content_type="text/html")
        if fault.name == "timeout_after":
            end = time.monotonic() + (_HANG if fault.argument is None else fault.argument)
            while time.monotonic() < end and not peer_is_gone(request, min(0.2, end - time.monotonic())):
                pass
        if fault.name in ("drop_after", "timeout_after"):
            raise drop_connection(request)
        return response


def create_sandbox(folder: Path, config: SandboxConfig | None = None) -> SandboxApp:
    """The sandbox over a folder, which is made if it is missing; batches in it are kept.

    :param config: how it behaves; the defaults otherwise.
    """
    return SandboxApp(folder, config or SandboxConfig())
