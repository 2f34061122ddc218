"""The endpoints of the Message Batches API: create, list, retrieve, cancel, delete, results.

The app calls a method per endpoint with the request and its caller; each returns a response or raises.
"""

from __future__ import annotations

from typing import Any

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request, Response

from .access import Caller
from .body import BodyTooLarge, InvalidJson
from .faults import Fault
from .hashing import identifier
from .intake import BatchRefused, Intake
from .lifecycle import bring_up_to_date, cancel, is_archived, is_due, present
from .lines import spoil_lines
from .replies import ApiError, TooLarge, invalid, json_response, not_found, truncated
from .results import stream_lines
from .state import State
from .store import Batch, BatchFiles

_DEFAULT_PAGE = 20
_LARGEST_PAGE = 1000


class BatchRoutes:
    """The endpoints under ``/v1/messages/batches``."""

    def __init__(self, state: State) -> None:
        self._state = state

    def create(self, request: Request, caller: Caller, faults: list[Fault]) -> Response:
        config = self._state.config
        if (request.content_length or 0) > config.max_body_bytes:
            raise TooLarge
        upload = self._state.store.upload(identifier("upload"))
        try:
            intake = self._read_body(request, caller, upload)
            batch = self._accept(caller, upload, intake)
        finally:
            upload.remove()
        # A delay of nothing ends it at the next look, not at this one.
        return json_response(present(batch, batch.created_at, request.host_url))

    def list_batches(self, request: Request, caller: Caller, faults: list[Fault]) -> Response:
        limit = _read_limit(request)
        after, before = request.args.get("after_id"), request.args.get("before_id")
        if after and before:
            raise invalid("before_id and after_id cannot be used together")
        store, one_more = self._state.store, limit + 1
        if before:
            page = store.newer(caller.workspace, one_more, self._find(caller, before).seq)
            has_more, page = len(page) > limit, page[-limit:]
        else:
            seq = self._find(caller, after).seq if after else None
            page = store.newest(caller.workspace, one_more, seq)
            has_more, page = len(page) > limit, page[:limit]
        shown = [self._present(self._current(batch), request) for batch in page]
        first, last = (page[0].id, page[-1].id) if page else (None, None)
        return json_response({"data": shown, "has_more": has_more, "first_id": first, "last_id": last})

    def retrieve(self, request: Request, caller: Caller, faults: list[Fault], batch_id: str) -> Response:
        batch = self._find(caller, batch_id)
        headers = {} if batch.ended_at is not None else {"retry-after": "10"}
        return json_response(self._present(batch, request), headers=headers)

    def cancel(self, request: Request, caller: Caller, faults: list[Fault], batch_id: str) -> Response:
        with self._state.store.lock:
            batch = self._find(caller, batch_id)
            if batch.ended_at is not None:
                raise invalid(f"Message Batch {batch_id} has already ended and cannot be canceled.")
            canceling = cancel(self._state.store, batch, self._state.clock.now())
        return json_response(self._present(canceling, request))

    def delete(self, request: Request, caller: Caller, faults: list[Fault], batch_id: str) -> Response:
        batch = self._find(caller, batch_id)
        if batch.ended_at is None:
            raise invalid("In progress batches cannot be deleted. Consider canceling the batch instead.")
        self._state.store.delete(batch)
        return json_response({"id": batch.id, "type": "message_batch_deleted"})

    def results(self, request: Request, caller: Caller, faults: list[Fault], batch_id: str) -> Response:
        batch = self._find(caller, batch_id)
        if batch.ended_at is None or is_archived(batch, self._state.clock.now()):
            raise not_found(f"Message Batch {batch_id} has no available results.")
        chunks = spoil_lines(stream_lines(self._state.store, batch), faults)
        for fault in faults:
            if fault.name == "truncate":
                chunks = truncated(chunks, int(fault.argument or 0), request)
        return Response(chunks, content_type="application/x-jsonl", direct_passthrough=True)

    def _read_body(self, request: Request, caller: Caller, upload: BatchFiles) -> Intake:
        intake = Intake(self._state.config, caller.version, caller.betas)
        try:
            intake.take_in(request.stream.read, upload)
        except BodyTooLarge:
            raise TooLarge from None
        except InvalidJson as error:
            raise invalid(f"The request body is not valid JSON: {error}") from None
        except BatchRefused as error:
            raise invalid(str(error)) from None
        except HTTPException:
            # The client went away before the end of its body: there is nobody to answer.
            raise ConnectionAbortedError("the body was cut short") from None
        return intake

    def _accept(self, caller: Caller, upload: BatchFiles, intake: Intake) -> Batch:
        with self._state.store.lock:
            self._check_queue(caller, intake.total)
            batch = Batch(
                id=identifier("msgbatch_"),
                workspace=caller.workspace,
                created_at=self._state.clock.now(),
                total=intake.total,
                planned=dict(intake.planned),
                version=caller.version,
                betas=caller.betas,
                config=self._state.config,
            )
            return self._state.store.add(batch, upload, intake.prefixes.items())

    def _check_queue(self, caller: Caller, total: int) -> None:
        """Refuse what does not fit in the queue; ends what is due, so that later batches find its cache."""
        limit = self._state.config.queue_limit
        for batch in self._state.store.due(caller.workspace, self._state.clock.now()):
            self._current(batch)
        if limit and self._state.store.queued(caller.workspace) + total > limit:
            message = (
                "This request would exceed your organization's limit of "
                f"{limit} batch requests in the processing queue."
            )
            raise ApiError(429, "rate_limit_error", message, retry_after=10)

    def _find(self, caller: Caller, batch_id: str) -> Batch:
        batch = self._state.store.find(caller.workspace, batch_id)
        if batch is None:
            raise not_found(f"Message Batch {batch_id} not found.")
        return self._current(batch)

    def _current(self, batch: Batch) -> Batch:
        if not is_due(batch, self._state.clock.now()):
            return batch
        with self._state.store.lock:
            # Read again: a cancel may have come between.
            fresh = self._state.store.find(batch.workspace, batch.id) or batch
            return bring_up_to_date(self._state.store, fresh, self._state.clock.now())

    def _present(self, batch: Batch, request: Request) -> dict[str, Any]:
        return present(batch, self._state.clock.now(), request.host_url)


def _read_limit(request: Request) -> int:
    text = request.args.get("limit", str(_DEFAULT_PAGE))
    try:
        limit = int(text)
    except ValueError:
        raise invalid("limit: Input should be a valid integer, unable to parse string as an integer") from None
    if limit < 1:
        raise invalid("limit: Input should be greater than or equal to 1")
    if limit > _LARGEST_PAGE:
        raise invalid(f"limit: Input should be less than or equal to {_LARGEST_PAGE}")
    return limit
