"""The task `summarise`: says in a few sentences, words or points what each document says.
Loaded as a plugin; it uses nothing that a third party's plugin could not.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from webapp.hooks import InvalidOutput, Lines, Message, ModelSettings, Prompt, Subject, Task, hookimpl

api_version = 1

VERSION = "2"
PROMPT = Prompt(__file__, f"summarise-{VERSION}")


class SummariseSettings(ModelSettings):
    sentences: int = Field(
        default=3,
        ge=1,
        le=20,
        description="The most sentences a summary may have, where neither words nor bullets are set.",
    )
    words: int | None = Field(default=None, ge=5, le=2000, description="The most words, in place of sentences.")
    bullets: int | None = Field(
        default=None,
        ge=1,
        le=30,
        description="The most points, in place of sentences: the output then has 'bullets', a list, in place of "
        "'summary'.",
    )
    language: str | None = Field(
        default=None,
        max_length=100,
        description="The language to write in, like English. Empty: each document's own language.",
    )
    style: Literal["neutral", "plain", "formal", "brief"] = Field(
        default="neutral",
        description="The manner of writing. plain: everyday words and short sentences. formal: complete sentences, "
        "no contractions. brief: as few words as carry the meaning.",
    )
    audience: str | None = Field(
        default=None, max_length=200, description="Who will read it, like 'nurses without a background in finance'."
    )
    focus: Lines | None = Field(
        default=None, max_length=1000, description="What matters most and comes first, like 'costs, and who pays'."
    )

    @field_validator("bullets")
    @classmethod
    def _one_length(cls, bullets: int | None, info: ValidationInfo) -> int | None:
        if bullets is not None and info.data.get("words") is not None:
            raise ValueError("the length is given in words already: set one of the two")
        return bullets


class Answer(BaseModel):
    summary: str | None = None
    bullets: list[str] | None = None


class Summarise(Task[SummariseSettings]):
    name = "summarise"
    title = "Summarise"
    subject_kinds = ("document",)
    version = VERSION
    Settings = SummariseSettings

    def shared_params(self, settings: SummariseSettings) -> dict[str, Any]:
        prompt = PROMPT.part(
            "system",
            length=_length(settings),
            language=settings.language or PROMPT.part("language own"),
            wishes="".join(f"{wish}\n\n" for wish in _wishes(settings)),
            form=PROMPT.part("form bullets" if settings.bullets else "form text"),
        )
        cached = {"type": "text", "text": prompt, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
        return {**settings.base_params(_schema(settings)), "system": [cached]}

    def request_params(self, subject: Subject, settings: SummariseSettings) -> dict[str, Any]:
        text = f"<document>\n{subject.require_text()}\n</document>\n\n{PROMPT.part('question')}"
        return {"messages": [{"role": "user", "content": text}]}

    def process(self, subject: Subject, message: Message, settings: SummariseSettings) -> dict[str, Any]:
        answer = message.structured(Answer)
        if settings.bullets:
            # One line each, and no more than were asked for: the weightiest come first.
            bullets = [" ".join(one.split()) for one in answer.bullets or () if one.strip()][: settings.bullets]
            if not bullets:
                raise InvalidOutput("the summary is empty")
            return {"bullets": bullets}
        summary = (answer.summary or "").strip()
        if not summary:
            raise InvalidOutput("the summary is empty")
        return {"summary": summary}


def _length(settings: SummariseSettings) -> str:
    if settings.words:
        return PROMPT.part("length words", count=str(settings.words))
    unit, count = ("bullet", settings.bullets) if settings.bullets else ("sentence", settings.sentences)
    return PROMPT.part(f"length {unit}" if count == 1 else f"length {unit}s", count=str(count))


def _wishes(settings: SummariseSettings) -> list[str]:
    """What the settings ask for beside length and language."""
    found = [] if settings.style == "neutral" else [PROMPT.part(f"style {settings.style}")]
    if settings.audience:
        found.append(PROMPT.part("audience", audience=settings.audience))
    if settings.focus:
        found.append(PROMPT.part("focus", focus=settings.focus))
    return found


def _schema(settings: SummariseSettings) -> dict[str, Any]:
    text = {"type": "string"}
    properties: dict[str, Any] = {"summary": text}
    if settings.bullets:
        properties = {"bullets": {"type": "array", "items": text, "minItems": 1}}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


@hookimpl
def register_tasks() -> list[Task[Any]]:
    return [Summarise()]
