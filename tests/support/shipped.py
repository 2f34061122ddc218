"""The shipped tasks as their tests call them: what one asks, and what it makes of an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from webapp.hooks import Image, Message, Subject, calls, load_plugins

ROOT = Path(__file__).parents[2]
REGISTRY = load_plugins(folder=ROOT / "plugins", entry_points=False)
REQUIRED: dict[str, dict[str, str]] = {
    "classify": {"labels": "spam,ham"},
    "summarise": {},
    "alt_text": {},
    "extract": {"fields": "total: number, what is to be paid"},
    "evaluate": {"rubric": "faithful: says nothing that the record does not say"},
}
TASKS = tuple(REQUIRED)
DOCUMENT = Subject("document", "d1", {}, text="Buy now!")
IMAGE = Subject("image", "i1", {}, image=Image("cd" * 32, "image/jpeg", 640, 480))
OUTPUT = Subject(
    "output",
    "o1",
    {"record": {"text": "Buy now!"}, "output": {"label": "spam"}, "run": 7, "task": "classify", "model": "m"},
)
SUBJECTS = {"alt_text": IMAGE, "evaluate": OUTPUT}


def parts(name: str, subject: Subject | None = None, **raw: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The shared part and the own part of a request."""
    task = REGISTRY.task(name)
    settings = REGISTRY.parse_settings(task, {**REQUIRED[name], **raw})
    shared = calls.shared_params(task, settings)
    return shared, calls.request_params(task, subject or SUBJECTS.get(name, DOCUMENT), settings, shared)


def prompt(name: str, **raw: str) -> str:
    [block] = parts(name, **raw)[0]["system"]
    return str(block["text"])


def schema(name: str, **raw: str) -> dict[str, Any]:
    found: dict[str, Any] = parts(name, **raw)[0]["output_config"]["format"]["schema"]
    return found


def output(name: str, answer: object, stop_reason: str = "end_turn", subject: Subject | None = None, **raw: str) -> Any:
    task = REGISTRY.task(name)
    settings = REGISTRY.parse_settings(task, {**REQUIRED[name], **raw})
    text = answer if isinstance(answer, str) else json.dumps(answer)
    message = Message({"content": [{"type": "text", "text": text}], "stop_reason": stop_reason})
    return calls.process(task, subject or SUBJECTS.get(name, DOCUMENT), message, settings)
