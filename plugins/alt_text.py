"""The task `alt_text`: writes the text that stands for each image where it cannot be seen.
Loaded as a plugin; it uses nothing that a third party's plugin could not.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, Field

from webapp.hooks import InvalidOutput, Lines, Message, ModelSettings, Prompt, Subject, Task, hookimpl

api_version = 1

VERSION = "2"
PROMPT = Prompt(__file__, f"alt_text-{VERSION}")
MOST_CONTEXT = 4_000  # characters of one record's; a page's whole text would cost more than its image


class AltTextSettings(ModelSettings):
    language: str = Field(default="English", min_length=1, max_length=100, description="The language to write in.")
    max_characters: int = Field(
        default=125,
        ge=20,
        le=2000,
        description="The length the model is asked to keep to, in characters. A text that came out longer "
        "is kept whole.",
    )
    context: Lines | None = Field(
        default=None,
        max_length=2000,
        description="What the images are for, like 'the catalogue of a shop for bicycle parts'. It holds for all of "
        "them.",
    )
    context_field: str | None = Field(
        default=None,
        max_length=200,
        description="The field of each record that says where its image stands or what goes with it, like 'caption'; "
        f"the first {MOST_CONTEXT} characters are given. A record without it is described all the same.",
    )
    decorative: Literal["describe", "empty"] = Field(
        default="describe",
        description="Images that are there for looks alone. describe: like any other. empty: their text is empty, and "
        "each output says as 'decorative' whether it is one.",
    )


class Answer(BaseModel):
    alt_text: str
    decorative: bool = False


class AltText(Task[AltTextSettings]):
    name = "alt_text"
    title = "Alternative text"
    subject_kinds = ("image",)
    version = VERSION
    Settings = AltTextSettings

    def shared_params(self, settings: AltTextSettings) -> dict[str, Any]:
        told = settings.context is not None or settings.context_field is not None
        prompt = PROMPT.part(
            "system",
            language=settings.language,
            max_characters=str(settings.max_characters),
            context="".join(f"{one}\n\n" for one in _contexts(settings)),
            or_context=f" {PROMPT.part('or context')}" if told else "",
            decorative=f"{PROMPT.part('decorative')}\n\n" if settings.decorative == "empty" else "",
            context_material=f" {PROMPT.part('context is material')}" if settings.context_field else "",
        )
        cached = {"type": "text", "text": prompt, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
        return {**settings.base_params(_schema(settings)), "system": [cached]}

    def request_params(self, subject: Subject, settings: AltTextSettings) -> dict[str, Any]:
        question, told = PROMPT.part("question"), _told(subject, settings)
        text = f"<context>\n{told}\n</context>\n\n{question}" if told else question
        content = [subject.require_image().block(), {"type": "text", "text": text}]
        return {"messages": [{"role": "user", "content": content}]}

    def process(self, subject: Subject, message: Message, settings: AltTextSettings) -> dict[str, Any]:
        answer = message.structured(Answer)
        # Line breaks would end up inside an HTML attribute.
        text = " ".join(answer.alt_text.split())
        if settings.decorative == "empty" and answer.decorative:
            return {"alt_text": "", "decorative": True}
        if not text:
            raise InvalidOutput("the alternative text is empty")
        return {"alt_text": text, "decorative": False} if settings.decorative == "empty" else {"alt_text": text}


def _contexts(settings: AltTextSettings) -> list[str]:
    found = [PROMPT.part("context", context=settings.context)] if settings.context else []
    return [*found, PROMPT.part("context of the record")] if settings.context_field else found


def _told(subject: Subject, settings: AltTextSettings) -> str:
    """What a record says about its image; empty where it says nothing."""
    value = subject.data.get(settings.context_field) if settings.context_field else None
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.strip()[:MOST_CONTEXT]


def _schema(settings: AltTextSettings) -> dict[str, Any]:
    properties = {"alt_text": {"type": "string"}}
    if settings.decorative == "empty":
        # First, because the text follows from it.
        properties = {"decorative": {"type": "boolean"}, **properties}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


@hookimpl
def register_tasks() -> list[Task[Any]]:
    return [AltText()]
