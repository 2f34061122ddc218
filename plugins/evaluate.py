"""The task `evaluate`: scores the outputs of another run by a rubric, to compare prompts and models before a big run.
Loaded as a plugin; it uses nothing that a third party's plugin could not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from pydantic import Field, RootModel, field_validator

from webapp.hooks import (
    InputError,
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

VERSION = "1"
PROMPT = Prompt(__file__, f"evaluate-{VERSION}")
MOST_CRITERIA = 20
ABOUT = ("run", "task", "model")  # what an output says of the run that it comes from

_WEIGHT = re.compile(r"weight\s+([0-9]+(?:\.[0-9]+)?)\s*,\s*(.+)")


@dataclass(frozen=True, slots=True)
class Criterion:
    """One line of a rubric."""

    name: str
    meaning: str
    weight: Fraction = Fraction(1)


@lru_cache(maxsize=64)
def criteria(rubric: str) -> tuple[Criterion, ...]:
    """The criteria of a rubric, one a line: ``name: [weight N,] what is judged``.

    :raises ValueError: says which line is wrong.
    """
    found = []
    for line in named_lines(rubric):
        weighted = _WEIGHT.fullmatch(line.rest)
        weight = Fraction(weighted[1]) if weighted else Fraction(1)
        if not 0 < weight <= 1000:
            raise ValueError(f"line {line.number}: the weight of '{line.name}' must be more than 0 and at most 1000")
        found.append(Criterion(line.name, weighted[2] if weighted else line.rest, weight))
    if not found:
        raise ValueError("give at least one criterion, like 'faithful: says nothing that the record does not say'")
    if len(found) > MOST_CRITERIA:
        raise ValueError(f"there are {len(found)} criteria; at most {MOST_CRITERIA} can be judged at once")
    return tuple(found)


class EvaluateSettings(ModelSettings):
    rubric: Lines = Field(
        max_length=20_000,
        description="The criteria, one a line: 'name: what is judged'. A criterion counts more or less than the "
        "others with a weight: 'name: weight 3, what is judged'.",
    )
    asked: Lines | None = Field(
        default=None,
        max_length=20_000,
        description="What the task that is judged was asked to do, in your words. Without it the rubric must say all.",
    )
    scale: int = Field(default=5, ge=2, le=10, description="The highest score of a criterion; the lowest is 1.")
    pass_mark: int = Field(
        default=70, ge=0, le=100, description="The total, from 0 to 100, from which the verdict is pass."
    )
    reference_field: str | None = Field(
        default=None,
        max_length=200,
        description="The field of each record that holds the right answer, made by people. It is shown as that, and "
        "not as part of the record.",
    )

    @field_validator("rubric")
    @classmethod
    def _readable(cls, rubric: str) -> str:
        criteria(rubric)
        return rubric


class Answer(RootModel[dict[str, Any]]):
    pass


class Evaluate(Task[EvaluateSettings]):
    name = "evaluate"
    title = "Evaluate"
    subject_kinds = ("output",)
    version = VERSION
    Settings = EvaluateSettings

    def shared_params(self, settings: EvaluateSettings) -> dict[str, Any]:
        compared = settings.reference_field is not None
        prompt = PROMPT.part(
            "system",
            asked=f"{PROMPT.part('asked', asked=settings.asked)}\n\n" if settings.asked else "",
            rubric="\n".join(f"- {one.name}: {one.meaning}" for one in criteria(settings.rubric)),
            top=str(settings.scale),
            reference=f"{PROMPT.part('reference')}\n" if compared else "",
            given="<reference> and " if compared else "and ",
        )
        cached = {"type": "text", "text": prompt, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
        return {**settings.base_params(_schema(settings)), "system": [cached]}

    def request_params(self, subject: Subject, settings: EvaluateSettings) -> dict[str, Any]:
        record, output = subject.data.get("record"), subject.data.get("output")
        if "record" not in subject.data or "output" not in subject.data:
            raise InputError(
                f"record '{subject.key}' is no output of a run: make a dataset of a run's outputs, and evaluate that"
            )
        parts = {"record": record}
        if settings.reference_field is not None:
            kept, reference = _reference(subject.key, record, settings.reference_field)
            parts = {"record": kept, "reference": reference}
        shown = "\n\n".join(_shown(name, value) for name, value in {**parts, "output": output}.items())
        return {"messages": [{"role": "user", "content": f"{shown}\n\n{PROMPT.part('question')}"}]}

    def process(self, subject: Subject, message: Message, settings: EvaluateSettings) -> dict[str, Any]:
        answer = message.structured(Answer).root
        judged = {one.name: _judged(one.name, answer.get(one.name), settings) for one in criteria(settings.rubric)}
        total = _total({name: score for name, (score, _) in judged.items()}, settings)
        return {
            "total": total,
            "verdict": "pass" if total >= settings.pass_mark else "fail",
            "scores": {name: score for name, (score, _) in judged.items()},
            "reasons": {name: reason for name, (_, reason) in judged.items()},
            **{name: subject.data[name] for name in ABOUT if name in subject.data},
        }


def _schema(settings: EvaluateSettings) -> dict[str, Any]:
    score = {"type": "integer", "enum": list(range(1, settings.scale + 1))}
    # The reason first: the score is to follow from it.
    judged = _object({"reason": {"type": "string"}, "score": score})
    return _object({one.name: judged for one in criteria(settings.rubric)})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _reference(key: str, record: Any, field: str) -> tuple[dict[str, Any], Any]:
    """(the record without its reference, the reference).

    :raises InputError: the record has none.
    """
    if not isinstance(record, Mapping) or record.get(field) in (None, ""):
        raise InputError(f"record '{key}' has no '{field}' to compare its output with")
    return {name: value for name, value in record.items() if name != field}, record[field]


def _shown(name: str, value: Any) -> str:
    """A value between its tags; no text of its own can close them, for JSON may write / as \\/."""
    text = json.dumps(value, ensure_ascii=False, indent=1).replace("</", "<\\/")
    return f"<{name}>\n{text}\n</{name}>"


def _judged(name: str, given: Any, settings: EvaluateSettings) -> tuple[int, str]:
    """(score, reason) of one criterion.

    :raises InvalidOutput: the answer does not give them.
    """
    score, reason = (given.get("score"), given.get("reason")) if isinstance(given, dict) else (None, None)
    if isinstance(score, bool) or not isinstance(score, int) or not 1 <= score <= settings.scale:
        raise InvalidOutput(f"criterion '{name}': the score {score!r} is no whole number from 1 to {settings.scale}")
    if not isinstance(reason, str) or not reason.strip():
        raise InvalidOutput(f"criterion '{name}': the answer gives no reason")
    return score, reason.strip()


def _total(scores: Mapping[str, int], settings: EvaluateSettings) -> float:
    """0 where every score is the lowest, 100 where every one is the highest; by weight between."""
    weights = {one.name: one.weight for one in criteria(settings.rubric)}
    parts = [weights[name] * Fraction(score - 1, settings.scale - 1) for name, score in scores.items()]
    return float(round(100 * sum(parts, Fraction(0)) / sum(weights.values(), Fraction(0)), 1))


@hookimpl
def register_tasks() -> list[Task[Any]]:
    return [Evaluate()]
