"""The task `extract`: takes the fields that the operator declared out of each document, with the words that prove them.
Loaded as a plugin; it uses nothing that a third party's plugin could not.

The model gives each field as a list, empty where the document says nothing: the API takes only 16 fields in a schema
that may also be null, and any number of lists.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any, Literal

from pydantic import BaseModel, Field, RootModel, field_validator

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

VERSION = "1"
PROMPT = Prompt(__file__, f"extract-{VERSION}")
RESERVED = ("evidence", "unsupported", "records")
MOST_FIELDS = 100

# What a field may be: as people write it, as the prompt says it, as the schema says it.
TYPES: dict[str, tuple[str, dict[str, Any]]] = {
    "text": ("text", {"type": "string"}),
    "number": ("number", {"type": "number"}),
    "integer": ("whole number", {"type": "integer"}),
    "boolean": ("true or false", {"type": "boolean"}),
    "date": ("date", {"type": "string", "format": "date"}),
    "list": ("list of texts", {"type": "string"}),
    "one of": ("one of several", {"type": "string"}),
}
_WORDS = "text, number, integer, boolean, date, list, or one of a|b|c"
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
# Marks that are copied in another shape, though the words are the same.
_SAME = str.maketrans(
    {**dict.fromkeys("‘’‚‛′`´", "'"), **dict.fromkeys("“”„‟″«»", '"'), **dict.fromkeys("‐‑‒–—―−", "-")}
)


@dataclass(frozen=True, slots=True)
class Declared:
    """A field, as the operator declared it.

    :param needed: an answer without it is no use.
    """

    name: str
    kind: str
    meaning: str
    needed: bool = False
    options: tuple[str, ...] = ()

    @property
    def several(self) -> bool:
        return self.kind == "list"


@lru_cache(maxsize=64)
def declared(text: str) -> tuple[Declared, ...]:
    """The fields of a declaration, one a line: ``name: [needed] type, what it is``.

    :raises ValueError: says which line is wrong, and what is allowed.
    """
    found: list[Declared] = []
    for line in named_lines(text):
        if line.name.lower() in RESERVED:
            raise ValueError(f"line {line.number}: '{line.name}' is a name of the output's own: choose another")
        same = [one.name for one in found if one.name.lower() == line.name.lower()]
        if same:
            raise ValueError(f"line {line.number}: '{same[0]}' and '{line.name}' differ in case only")
        found.append(_declared(line.number, line.name, line.rest))
    if not found:
        raise ValueError("declare at least one field, like 'total: number, what is to be paid'")
    if len(found) > MOST_FIELDS:
        raise ValueError(f"there are {len(found)} fields; at most {MOST_FIELDS} can be asked for at once")
    return tuple(found)


def _declared(number: int, name: str, rest: str) -> Declared:
    written, _, meaning = (part.strip() for part in rest.partition(","))
    words = written.split()
    needed = words[:1] == ["needed"]
    kind = " ".join(words[needed:])
    options: tuple[str, ...] = ()
    if kind.startswith("one of "):
        options = tuple(option.strip() for option in kind.removeprefix("one of ").split("|"))
        if len(options) < 2 or "" in options or len(set(options)) < len(options):
            raise ValueError(f"line {number}: '{name}' needs at least two different values: one of a|b|c")
        kind = "one of"
    if kind not in TYPES or (kind == "one of" and not options):
        raise ValueError(f"line {number}: '{name}' has the type {kind[:60]!r}; there are {_WORDS}")
    return Declared(name, kind, meaning, needed, options)


class ExtractSettings(ModelSettings):
    fields: Lines = Field(
        examples=["title: text, what it is called\ntotal: number, what is to be paid\nparts: list, what it is made of"],
        max_length=20_000,
        description="The fields, one a line: 'name: type, what it is'. The type is " + _WORDS + ". A field that the "
        "document does not give is null; with 'needed' before its type, the answer is then no use.",
    )
    per_document: Literal["one", "many"] = Field(
        default="one",
        description="one: the fields once for each document. many: a list of them under 'records', like the lines of "
        "an invoice.",
    )
    evidence: Literal["none", "drop", "flag", "refuse"] = Field(
        default="drop",
        description="Ask for the words of the document that each value is taken from, and look whether they stand "
        "there. Where they do not: drop the value, flag it only, or refuse the whole answer. none: do not ask.",
    )

    @field_validator("fields")
    @classmethod
    def _readable(cls, fields: str) -> str:
        declared(fields)
        return fields


class Answer(RootModel[dict[str, Any]]):
    pass


class Many(BaseModel):
    records: list[dict[str, Any]]


class Extract(Task[ExtractSettings]):
    name = "extract"
    title = "Extract"
    subject_kinds = ("document",)
    version = VERSION
    Settings = ExtractSettings

    def shared_params(self, settings: ExtractSettings) -> dict[str, Any]:
        proved = settings.evidence != "none"
        total = {"quote": "Total due: EUR 1,250.00", "value": 1250} if proved else 1250
        example = json.dumps({"total": [total], "due": []})
        texts = [PROMPT.part("evidence")] if proved else []
        if settings.per_document == "one":
            texts.append(PROMPT.part("example", answer=example))
        prompt = PROMPT.part(
            "system",
            fields="\n".join(map(_described, declared(settings.fields))),
            records=PROMPT.part(f"records {settings.per_document}"),
            evidence="".join(f"{text}\n\n" for text in texts),
        )
        cached = {"type": "text", "text": prompt, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
        return {**settings.base_params(_schema(settings)), "system": [cached]}

    def request_params(self, subject: Subject, settings: ExtractSettings) -> dict[str, Any]:
        text = f"<document>\n{subject.require_text()}\n</document>\n\n{PROMPT.part('question')}"
        return {"messages": [{"role": "user", "content": text}]}

    def process(self, subject: Subject, message: Message, settings: ExtractSettings) -> dict[str, Any]:
        text = _plain(subject.text or "") if settings.evidence != "none" else ""
        if settings.per_document == "one":
            return _record(message.structured(Answer).root, settings, text, "")
        found = message.structured(Many).records
        return {
            "records": [_record(one, settings, text, f"record {place}, ") for place, one in enumerate(found, 1)],
        }


def _described(field: Declared) -> str:
    """A field as the prompt tells it."""
    kind = f"one of: {' | '.join(field.options)}" if field.options else TYPES[field.kind][0]
    words = f"- {field.name} ({kind}{'; needed' if field.needed else ''})"
    return f"{words}: {field.meaning}" if field.meaning else words


def _schema(settings: ExtractSettings) -> dict[str, Any]:
    """The shape of an answer. Bounds are no part of it: the API takes none."""
    properties = {field.name: _field_schema(field, settings) for field in declared(settings.fields)}
    record = _object(properties)
    return record if settings.per_document == "one" else _object({"records": {"type": "array", "items": record}})


def _field_schema(field: Declared, settings: ExtractSettings) -> dict[str, Any]:
    value = {"type": "string", "enum": list(field.options)} if field.options else TYPES[field.kind][1]
    entry = value if settings.evidence == "none" else _object({"quote": {"type": "string"}, "value": value})
    return {"type": "array", "items": entry}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _record(answer: Mapping[str, Any], settings: ExtractSettings, text: str, where: str) -> dict[str, Any]:
    """One set of fields, each of its type, with its evidence.

    :raises InvalidOutput: names the field that is of another type, lacking though needed, or not to be proved.
    """
    values: dict[str, Any] = {}
    quotes: dict[str, Any] = {}
    unsupported: list[str] = []
    for field in declared(settings.fields):
        who = f"{where}field '{field.name}'"
        entries, proved = _entries(field, answer, settings, who), True
        if settings.evidence != "none":
            entries, proved = _proved(field, entries, text, settings, who)
        if not proved:
            unsupported.append(field.name)
        if field.needed and not entries:
            raise InvalidOutput(
                f"{who} is needed, and the answer gives no value{'' if proved else ' that it can prove'}"
            )
        values[field.name] = _shown(field, [value for _, value in entries])
        quotes[field.name] = _shown(field, [quote for quote, _ in entries])
    return values if settings.evidence == "none" else {**values, "evidence": quotes, "unsupported": unsupported}


def _proved(
    field: Declared, entries: list[tuple[str, Any]], text: str, settings: ExtractSettings, who: str
) -> tuple[list[tuple[str, Any]], bool]:
    """(the entries that stay, whether the document bears them out). Of several for one value, one that it does will do.

    :raises InvalidOutput: it does not, and the settings refuse that.
    """
    proved = [(quote, value) for quote, value in entries if _stands(quote, text)]
    if len(proved) == len(entries) or (proved and not field.several):
        return proved, True
    if settings.evidence == "refuse":
        quote = next(quote for quote, _ in entries if not _stands(quote, text))
        raise InvalidOutput(f"{who}: {quote[:80]!r} does not stand in the document")
    return entries if settings.evidence == "flag" else proved, False


def _shown(field: Declared, found: list[Any]) -> Any:
    return found if field.several else found[0] if found else None


def _entries(field: Declared, answer: Mapping[str, Any], settings: ExtractSettings, who: str) -> list[tuple[str, Any]]:
    """(quote, value) of each entry that holds a value; the quote is empty where none was asked for."""
    given = answer.get(field.name)
    if not isinstance(given, list):
        raise InvalidOutput(
            f"{who} is no list in the answer" if field.name in answer else f"{who} is not in the answer"
        )
    found: list[tuple[str, Any]] = []
    for entry in given:
        quote, value = "", entry
        if settings.evidence != "none":
            if not isinstance(entry, dict) or not isinstance(entry.get("quote"), str) or "value" not in entry:
                raise InvalidOutput(f"{who} has an entry without its quote and value")
            quote, value = entry["quote"].strip(), entry["value"]
        typed = _typed(field, value, who)
        if typed != "" and not any(typed == one for _, one in found):
            found.append((quote, typed))
    return found


def _typed(field: Declared, value: Any, who: str) -> Any:
    """The value, known to be of the field's type; an empty text says that there is none.

    :raises InvalidOutput: it is of another type.
    """
    kind = TYPES[field.kind][0]
    wrong = InvalidOutput(f"{who}: {str(value)[:80]!r} is no {kind}")
    if field.kind == "boolean":
        if not isinstance(value, bool):
            raise InvalidOutput(f"{who}: {str(value)[:80]!r} is neither true nor false")
        return value
    if field.kind in ("number", "integer"):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong
        if isinstance(value, float) and not (math.isfinite(value) and (field.kind == "number" or value.is_integer())):
            raise wrong
        return int(value) if field.kind == "integer" else value
    if not isinstance(value, str):
        raise wrong
    text = value.strip()
    if field.options and text not in field.options:
        raise InvalidOutput(f"{who}: {text[:80]!r} is none of {', '.join(field.options)}")
    if field.kind == "date" and text and not _is_day(text):
        raise InvalidOutput(f"{who}: {text[:80]!r} is no date that there is, written as YYYY-MM-DD")
    return text


def _is_day(text: str) -> bool:
    if not _DAY.fullmatch(text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _stands(quote: str, text: str) -> bool:
    """Whether words stand in a text, apart from white space, capitals, and the shape of quotation marks and dashes."""
    wanted = _plain(quote)
    return bool(wanted) and wanted in text


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text.translate(_SAME)).replace("\u00ad", "").casefold()
    return " ".join(folded.split())


@hookimpl
def register_tasks() -> list[Task[Any]]:
    return [Extract()]
