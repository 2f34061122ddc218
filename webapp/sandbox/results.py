"""Makes the result lines of a batch that has ended, in the order it was processed, and its bill.

They are made while they are first streamed (by the results route or for the bill), and kept in a file for
the next time. The same batch always gives the same lines, so two may make them at once.
"""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Iterator
from typing import Any

from .answers import Answer, write_answer
from .body import loads
from .caching import CacheBook, CacheUse
from .checks import check_params
from .content_checks import Problem
from .fates import Fate, settle_fate
from .hashing import fraction, identifier, number
from .models import Model, find_model
from .nasty import KINDS, spoil, trouble_text
from .prices import bill_message
from .store import Batch, Row, Store
from .tokens import dumps, measure

_FAILURES = {
    Fate.API_ERROR: Problem("api_error", "Internal server error", by_worker=True),
    Fate.OVERLOADED: Problem("overloaded_error", "Overloaded", by_worker=True),
    Fate.INVALID: Problem("invalid_request_error", "Output blocked by content filtering policy", by_worker=True),
}

#: The classes of tokens a bill sums up.
CLASSES = (
    "input_tokens",
    "cache_creation_5m_input_tokens",
    "cache_creation_1h_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
)
#: All that a bill says of a model.
BILLED = ("requests", *CLASSES, "picodollars", "unpriced")


def stream_lines(store: Store, batch: Batch) -> Iterator[bytes]:
    """The result lines of a batch that has ended: shuffled, one for each request but the missing."""
    kept = store.files(batch).results
    if kept.exists():
        with kept.open("rb") as lines:
            yield from lines
    else:
        yield from _make_lines(store, batch)


def reckon_bill(store: Store, batch: Batch) -> dict[str, dict[str, int]]:
    """What the batch's succeeded rows cost, by model: their number, their tokens by class, and picodollars, with the
    number of rows that have no price.
    """
    if batch.bill is not None:
        return batch.bill
    ledger = Ledger()
    for row in map(loads, stream_lines(store, batch)):
        ledger.book(row)
    return ledger.by_model


def _make_lines(store: Store, batch: Batch) -> Iterator[bytes]:
    """Make the lines; once all were made, they and the bill are kept."""
    kept, ledger = store.files(batch).results, Ledger()
    part = kept.with_name(f"{kept.name}.{identifier('part')}")
    try:
        with part.open("wb") as file:
            for row in _make_rows(store, batch):
                ledger.book(row)
                line = dumps(row) + b"\n"
                file.write(line)
                yield line
        part.replace(kept)
        store.save(dataclasses.replace(batch, bill=ledger.by_model))
    finally:
        part.unlink(missing_ok=True)


def _make_rows(store: Store, batch: Batch) -> Iterator[dict[str, Any]]:
    rows = store.files(batch).rows()
    order = list(range(len(rows)))
    random.Random(number(batch.id)).shuffle(order)  # noqa: S311 - the same shuffle each time is the point
    maker = _RowMaker(store, batch)
    body = os.open(store.files(batch).body, os.O_RDONLY)
    try:
        for nth, place in enumerate(order):
            row = rows[place]
            result = maker.make(row, loads(os.pread(body, row.length, row.offset)), nth)
            if result is not None:
                yield result
    finally:
        os.close(body)


class Ledger:
    """Sums up what succeeded rows cost."""

    def __init__(self) -> None:
        self.by_model: dict[str, dict[str, int]] = {}

    def book(self, row: dict[str, Any]) -> None:
        """Add a result row; one that did not succeed costs nothing."""
        if row["result"]["type"] != "succeeded":
            return
        message = row["result"]["message"]
        usage = message["usage"]
        line = self.by_model.setdefault(message["model"], dict.fromkeys(BILLED, 0))
        line["requests"] += 1
        line["input_tokens"] += usage["input_tokens"]
        line["cache_creation_5m_input_tokens"] += usage["cache_creation"]["ephemeral_5m_input_tokens"]
        line["cache_creation_1h_input_tokens"] += usage["cache_creation"]["ephemeral_1h_input_tokens"]
        line["cache_read_input_tokens"] += usage["cache_read_input_tokens"]
        line["output_tokens"] += usage["output_tokens"]
        model = find_model(message["model"])
        amount = model and bill_message(model, message)
        line["picodollars"] += amount or 0
        line["unpriced"] += amount is None


class _RowMaker:
    """Makes the rows of one pass, which must go through the batch in the order it was processed."""

    def __init__(self, store: Store, batch: Batch) -> None:
        self._batch = batch
        self._config = batch.config
        self._book = CacheBook(
            store.warm_prefixes(batch),
            batch.config.cache_cold_requests,
            batch.config.cache_hit_rate,
            fraction(batch.id, "cache"),
        )
        taken = (batch.ended_at or batch.created_at) - batch.created_at
        self._pace = taken.total_seconds() / batch.total

    def make(self, row: Row, request: dict[str, Any], nth: int) -> dict[str, Any] | None:
        """The result of one request, or None if it has no line.

        :param nth: how many were processed before it: the batch takes its time evenly over all of them.
        """
        custom_id, params = request["custom_id"], request["params"]
        fate = settle_fate(self._batch, row)
        if fate is Fate.MISSING:
            return None
        if fate is Fate.REJECTED:
            problem = check_params(params, self._batch.version, self._batch.betas, row.length)
            assert problem is not None
            result = _errored(problem, custom_id)
        elif fate in _FAILURES:
            result = _errored(_FAILURES[fate], custom_id)
        elif fate in (Fate.CANCELED, Fate.EXPIRED):
            result = {"type": fate.name.lower()}
        else:
            result = {"type": "succeeded", "message": self._message(custom_id, params, fate, nth)}
        return {"custom_id": custom_id, "result": result}

    def _message(self, custom_id: str, params: dict[str, Any], fate: Fate, nth: int) -> dict[str, Any]:
        model = find_model(params["model"])
        assert model is not None
        cache_use = self._book.use(measure(params, model), nth * self._pace)
        answer, stop_details = self._answer(custom_id, params, model, fate)
        return {
            "id": identifier("msg_", self._batch.id, custom_id),
            "type": "message",
            "role": "assistant",
            "model": model.id,
            "content": answer.content,
            "stop_reason": answer.stop_reason,
            "stop_sequence": answer.stop_sequence,
            "stop_details": stop_details,
            "usage": _usage(cache_use, answer, params, model),
        }

    def _answer(
        self, custom_id: str, params: dict[str, Any], model: Model, fate: Fate
    ) -> tuple[Answer, dict[str, Any] | None]:
        thinks = self._config.thinking
        if fate is not Fate.NASTY:
            return write_answer(params, model, custom_id=custom_id, thinks=thinks), None
        kind = KINDS[number(custom_id, "nasty") % len(KINDS)]
        trouble = trouble_text(kind, self._config.nasty_bytes)
        answer = write_answer(params, model, custom_id=custom_id, thinks=thinks, trouble=trouble)
        return spoil(answer, kind)


def _usage(cache_use: CacheUse, answer: Answer, params: dict[str, Any], model: Model) -> dict[str, Any]:
    geo = (params.get("inference_geo") or "global") if model.takes_geo else "not_available"
    usage = cache_use.as_usage() | {
        "output_tokens": answer.output_tokens,
        "service_tier": "batch",
        "inference_geo": geo,
    }
    if answer.thinking_tokens:
        usage["output_tokens_details"] = {"thinking_tokens": answer.thinking_tokens}
    return usage


def _errored(problem: Problem, custom_id: str) -> dict[str, Any]:
    error = {
        "details": {"error_visibility": "user_facing"},
        "type": problem.type,
        "message": problem.message,
    }
    request_id = identifier("workerreq_", custom_id) if problem.by_worker else None
    return {"type": "errored", "error": {"type": "error", "error": error, "request_id": request_id}}
