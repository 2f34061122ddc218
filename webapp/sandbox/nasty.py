"""Answers that give trouble: each is something the real API can send and a careless client chokes on.

The results ask for one when a batch was created with a share of nasty answers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .answers import Answer

_SCRIPT = "<script>alert('sandbox')</script><img src=x onerror=alert(1)>&amp;"
_REFUSAL = {"type": "refusal", "category": "general_harms", "explanation": "Refused by the sandbox, as asked."}


class Nasty(NamedTuple):
    """One kind of trouble: text for the free strings, or another ending of the whole message."""

    name: str
    text: str = ""
    stop_reason: str = ""


NUL = Nasty("nul", text="\x00 and \x00")
SURROGATE = Nasty("surrogate", text=" \ud800 alone")
SCRIPT = Nasty("script", text=_SCRIPT)
LONG = Nasty("long", text="long ")
BROKEN = Nasty("broken")
REFUSAL = Nasty("refusal", stop_reason="refusal")
MAX_TOKENS = Nasty("max_tokens", stop_reason="max_tokens")
PAUSE_TURN = Nasty("pause_turn", stop_reason="pause_turn")
EMPTY = Nasty("empty", stop_reason="end_turn")

KINDS = (NUL, SURROGATE, SCRIPT, LONG, BROKEN, REFUSAL, MAX_TOKENS, PAUSE_TURN, EMPTY)


def trouble_text(kind: Nasty, long_bytes: int) -> str:
    """What goes into the free strings of the answer.

    :param long_bytes: how long the long one is.
    """
    return kind.text * (long_bytes // len(kind.text)) if kind is LONG else kind.text


def spoil(answer: Answer, kind: Nasty) -> tuple[Answer, dict[str, Any] | None]:
    """The answer with its trouble, and the message's ``stop_details``."""
    if kind is REFUSAL:
        return answer._replace(content=[], stop_reason="refusal"), _REFUSAL
    if kind is EMPTY:
        return answer._replace(content=[], stop_reason="end_turn"), None
    if kind in (MAX_TOKENS, BROKEN, PAUSE_TURN):
        return answer._replace(content=_halved(answer.content), stop_reason=kind.stop_reason or "end_turn"), None
    return answer, None


def _halved(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    *before, last = content
    if last["type"] == "text":
        last = last | {"text": last["text"][: len(last["text"]) // 2]}
    return [*before, last]
