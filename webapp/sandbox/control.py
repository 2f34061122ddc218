"""The sandbox's own endpoints under ``/sandbox/``, which the real API does not have. Tests and audits use them.

Each needs a key like any other call, and concerns every workspace:

- ``GET /sandbox/clock`` tells the time; ``POST`` with ``{"advance": seconds}`` moves it forward.
- ``GET /sandbox/config`` shows the settings; ``POST`` with ``{name: value, …}`` changes some of them. Batches
  keep the settings they were created with; lists of faults begin anew.
- ``GET /sandbox/bill`` tells what was billed, per batch and in total: the tokens by class of succeeded rows of
  batches that have ended, and their list price in picodollars (1e-12 USD), with how many have none. It makes their
  results, so that they stream fast from then on.
- ``GET /sandbox/accepted`` lists every request that was accepted, as lines of
  ``{"custom_id": …, "batch_id": …}``; ``GET /sandbox/batches/{id}/requests`` those of one batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from werkzeug.wrappers import Request, Response

from .access import Caller
from .body import InvalidJson, loads
from .clock import timestamp
from .config import SandboxConfigError
from .faults import Fault
from .lifecycle import bring_up_to_date
from .replies import invalid, json_response, not_found
from .results import BILLED, reckon_bill
from .state import State
from .store import Batch
from .tokens import dumps

_CHUNK_LINES = 1000


class ControlRoutes:
    """The endpoints under ``/sandbox``."""

    def __init__(self, state: State) -> None:
        self._state = state

    def read_clock(self, request: Request, caller: Caller, faults: list[Fault]) -> Response:
        return json_response({"now": timestamp(self._state.clock.now())})

    def advance_clock(self, request: Request, caller: Caller, faults: list[Fault]) -> Response:
        seconds = _read_object(request).get("advance")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise invalid('advance: send {"advance": seconds}')
        try:
            self._state.clock.advance(seconds)
        except ValueError as error:
            raise invalid(f"advance: {error}") from None
        return self.read_clock(request, caller, faults)

    def read_config(self, request: Request, caller: Caller, faults: list[Fault]) -> Response:
        return json_response(self._state.config.as_dict())

    def change_config(self, request: Request, caller: Caller, faults: list[Fault]) -> Response:
        try:
            self._state.change(_read_object(request))
        except SandboxConfigError as error:
            raise invalid(str(error)) from None
        return self.read_config(request, caller, faults)

    def bill(self, request: Request, caller: Caller, faults: list[Fault]) -> Response:
        batches = []
        total = dict.fromkeys(BILLED, 0)
        for batch in self._state.store.all():
            by_model = self._bill_of(batch)
            sums = {name: sum(line.get(name, 0) for line in by_model.values()) for name in total}
            total = {name: total[name] + sums[name] for name in total}
            batches.append({"id": batch.id, "workspace": batch.workspace, "models": by_model, "total": sums})
        return json_response({"batches": batches, "total": total})

    def accepted(self, request: Request, caller: Caller, faults: list[Fault]) -> Response:
        return self._accepted(self._state.store.all())

    def requests(self, request: Request, caller: Caller, faults: list[Fault], batch_id: str) -> Response:
        batches = [batch for batch in self._state.store.all() if batch.id == batch_id]
        if not batches:
            raise not_found(f"Message Batch {batch_id} not found.")
        return self._accepted(batches)

    def _accepted(self, batches: Iterable[Batch]) -> Response:
        return Response(self._accepted_lines(batches), content_type="application/x-jsonl", direct_passthrough=True)

    def _accepted_lines(self, batches: Iterable[Batch]) -> Iterator[bytes]:
        for batch in batches:
            lines: list[bytes] = []
            with self._state.store.files(batch).ids.open() as ids:
                for line in ids:
                    lines.append(dumps({"custom_id": line.rstrip("\n"), "batch_id": batch.id}) + b"\n")
                    if len(lines) >= _CHUNK_LINES:
                        yield b"".join(lines)
                        lines.clear()
            yield b"".join(lines)

    def _bill_of(self, batch: Batch) -> dict[str, dict[str, int]]:
        with self._state.store.lock:
            batch = bring_up_to_date(self._state.store, batch, self._state.clock.now())
        if batch.ended_at is None:
            return {}
        return reckon_bill(self._state.store, batch)


def _read_object(request: Request) -> dict[str, Any]:
    try:
        value = loads(request.get_data())
    except InvalidJson as error:
        raise invalid(f"The request body is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise invalid("send an object")
    return value
