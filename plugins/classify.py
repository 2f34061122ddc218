"""The task `classify`: puts each document under one or several of the labels that the operator gave.
Loaded as a plugin; it uses nothing that a third party's plugin could not.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from webapp.hooks import (
    InvalidOutput,
    Lines,
    Message,
    ModelSettings,
    Prompt,
    Subject,
    Task,
    hookimpl,
    named_lines,
)

api_version = 1

VERSION = "2"
PROMPT = Prompt(__file__, f"classify-{VERSION}")
OTHER = "other"


class ClassifySettings(ModelSettings):
    labels: list[str] = Field(
        description="The labels to choose from, comma-separated; at least two. A label that holds a comma "
        "is put in double quotes.",
    )
    definitions: Lines = Field(
        default="",
        max_length=20_000,
        description="What labels mean, one a line: 'label: what belongs there, and what does not'. A label without a "
        "definition is taken in its ordinary meaning.",
    )
    most_labels: int = Field(
        default=1,
        ge=1,
        le=100,
        description="The most labels that a document may get. 1: the output has 'label'. More: it has 'labels', the "
        "best first.",
    )
    other: Literal["never", "allowed", "suggest"] = Field(
        default="never",
        description="When no label fits. never: the least misleading one is given. allowed: the label 'other' is. "
        "suggest: likewise, with a label that the list lacks as 'suggestion'.",
    )
    confidence: bool = Field(
        default=False,
        description="Ask how sure the model is: high, medium or low. That is its own word, good for choosing what "
        "people look at first, and no probability.",
    )

    @field_validator("labels")
    @classmethod
    def _sound(cls, labels: list[str]) -> list[str]:
        if len(labels) < 2:
            raise ValueError("give at least two labels to choose between")
        for place, label in enumerate(labels):
            if not label or not label.isprintable():
                raise ValueError(f"{label!r} is no label: it is empty or holds a line break or control character")
            for other in labels[:place]:
                if label == other:
                    raise ValueError(f"'{label}' is there twice")
                if label.casefold() == other.casefold():
                    raise ValueError(f"'{other}' and '{label}' differ in case only, and would be mixed up")
        return labels

    @field_validator("definitions")
    @classmethod
    def _of_labels(cls, definitions: str, info: ValidationInfo) -> str:
        if "labels" in info.data:  # else they are at fault themselves
            named_lines(definitions, info.data["labels"])
        return definitions

    @field_validator("other")
    @classmethod
    def _told_apart(cls, other: str, info: ValidationInfo) -> str:
        taken = [label for label in info.data.get("labels", ()) if label.casefold() == OTHER]
        if other != "never" and taken:
            raise ValueError(f"'{taken[0]}' is one of the labels: take it out of them, or leave this at never")
        return other

    @property
    def choices(self) -> list[str]:
        """All that the model may answer."""
        return self.labels if self.other == "never" else [*self.labels, OTHER]


class Answer(BaseModel):
    label: str | None = None
    labels: list[str] | None = None
    suggestion: str | None = None
    confidence: Literal["low", "medium", "high"] | None = None


class Classify(Task[ClassifySettings]):
    name = "classify"
    title = "Classify"
    subject_kinds = ("document",)
    version = VERSION
    Settings = ClassifySettings

    def shared_params(self, settings: ClassifySettings) -> dict[str, Any]:
        several = settings.most_labels > 1
        rules = [PROMPT.part(f"other {settings.other}")]
        if settings.confidence:
            rules.append(PROMPT.part("confidence"))
        prompt = PROMPT.part(
            "system",
            labels=_listed(settings),
            how_many=PROMPT.part("several", most=str(settings.most_labels)) if several else PROMPT.part("one"),
            rules="\n\n".join(rules),
        )
        cached = {"type": "text", "text": prompt, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
        return {**settings.base_params(_schema(settings)), "system": [cached]}

    def request_params(self, subject: Subject, settings: ClassifySettings) -> dict[str, Any]:
        question = PROMPT.part("question several" if settings.most_labels > 1 else "question")
        text = f"<document>\n{subject.require_text()}\n</document>\n\n{question}"
        return {"messages": [{"role": "user", "content": text}]}

    def process(self, subject: Subject, message: Message, settings: ClassifySettings) -> dict[str, Any]:
        answer = message.structured(Answer)
        output: dict[str, Any] = _labelled(answer, settings)
        if settings.other == "suggest":
            other = OTHER in (output.get("label"), *output.get("labels", ()))
            output["suggestion"] = (answer.suggestion or "").strip() or None if other else None
        if settings.confidence:
            if answer.confidence is None:
                raise InvalidOutput("the answer does not say how sure it is")
            output["confidence"] = answer.confidence
        return output


def _listed(settings: ClassifySettings) -> str:
    """The labels as the prompt lists them, each with its definition."""
    meant = {line.name: f": {line.rest}" for line in named_lines(settings.definitions, settings.labels)}
    return "\n".join(f"- {label}{meant.get(label, '')}" for label in settings.labels)


def _schema(settings: ClassifySettings) -> dict[str, Any]:
    label = {"type": "string", "enum": settings.choices}
    properties: dict[str, Any] = {"label": label}
    if settings.most_labels > 1:
        properties = {"labels": {"type": "array", "items": label, "minItems": 1}}
    if settings.other == "suggest":
        properties["suggestion"] = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    if settings.confidence:
        properties["confidence"] = {"type": "string", "enum": ["low", "medium", "high"]}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _labelled(answer: Answer, settings: ClassifySettings) -> dict[str, Any]:
    """The answer's label or labels, each known to be one that was asked for."""
    several = settings.most_labels > 1
    found = answer.labels if several else [answer.label] if answer.label is not None else []
    if not found:
        raise InvalidOutput("the answer gives no label")
    for label in found:
        if label not in settings.choices:
            raise InvalidOutput(f"the answer's label {label[:80]!r} is none of those asked for")
    if not several:
        return {"label": found[0]}
    # What the schema cannot hold back: doubles, one too many (the best come first), 'other' beside a label that fits.
    kept = list(dict.fromkeys(found))
    if settings.other != "never" and len(kept) > 1:
        kept = [label for label in kept if label != OTHER]
    return {"labels": kept[: settings.most_labels]}


@hookimpl
def register_tasks() -> list[Task[Any]]:
    return [Classify()]
