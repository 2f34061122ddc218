"""Which class a failure belongs to: whether it goes again by itself, wants a change, or wants a person.
Ingestion asks for each line that did not succeed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from webapp.batches.states import FailureClass, RequestState

RETRY_TYPES = frozenset({"overloaded_error", "api_error", "timeout_error", "rate_limit_error"})
ACCOUNT_TYPES = frozenset({"authentication_error", "permission_error", "billing_error"})
# "Your credit balance is too low" comes as invalid_request_error, and is nothing the request could mend.
ACCOUNT_TEXT = "credit balance is too low"

STATES = {
    "succeeded": RequestState.SUCCEEDED,
    "errored": RequestState.ERRORED,
    "canceled": RequestState.CANCELED,
    "expired": RequestState.EXPIRED,
}


class Failure(NamedTuple):
    """What an errored line says, and the class that follows from it."""

    kind: FailureClass
    type: str | None
    message: str


def of_error(result: dict[str, Any]) -> Failure:
    """The failure of an `errored` result; the API nests the error twice."""
    outer = result.get("error")
    inner = outer.get("error", outer) if isinstance(outer, dict) else None
    inner = inner if isinstance(inner, dict) else {}
    kind = inner.get("type")
    message = inner.get("message")
    kind = kind if isinstance(kind, str) else None
    words = message if isinstance(message, str) else "The API gave no reason."
    return Failure(_class_of(kind, words), kind, f"{kind}: {words}" if kind else words)


def _class_of(kind: str | None, message: str) -> FailureClass:
    if kind in ACCOUNT_TYPES or ACCOUNT_TEXT in message.lower():
        return FailureClass.ACCOUNT
    return FailureClass.RETRY if kind in RETRY_TYPES else FailureClass.FIX


OF_STATE = {
    RequestState.CANCELED: Failure(FailureClass.STOPPED, None, "Cancelled before it was worked on."),
    RequestState.EXPIRED: Failure(FailureClass.RETRY, None, "The API did not get to it within 24 hours."),
    RequestState.MISSING: Failure(FailureClass.RETRY, None, "The API ended the batch without a line for it."),
}
