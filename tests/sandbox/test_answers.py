"""Answers: they fit what was asked for and say what the input says."""

from __future__ import annotations

import base64
import io
import json
import re
from typing import Any

import anthropic
import pytest
from anthropic.types import ToolUseBlock
from PIL import Image
from support.sandbox_calls import SONNET, closed_object, json_format, message, params, text_of

LABELS = {"type": "string", "enum": ["billing problem", "shipping delays", "praise"]}


def fitted(client: anthropic.Anthropic, schema: dict[str, Any], text: str = "A cat sat on a mat.") -> Any:
    return json.loads(text_of(message(client, params(text, output_config=json_format(schema)))))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("My bill is wrong and there is a problem with the billing address.", "billing problem"),
        ("The parcel is late: shipping took weeks, one delay after another.", "shipping delays"),
        ("I have nothing but praise for you.", "praise"),
    ],
)
def test_a_classification_picks_the_label_whose_words_the_text_shares(
    shared_client: anthropic.Anthropic, text: str, label: str
) -> None:
    assert fitted(shared_client, closed_object(label=LABELS), text) == {"label": label}


def test_texts_that_share_nothing_get_a_label_that_depends_on_them(shared_client: anthropic.Anthropic) -> None:
    batch = [fitted(shared_client, closed_object(label=LABELS), f"Zzz {at}.")["label"] for at in range(12)]
    again = [fitted(shared_client, closed_object(label=LABELS), f"Zzz {at}.")["label"] for at in range(12)]
    assert batch == again
    assert len(set(batch)) > 1


def test_a_short_label_is_met_as_a_word_only(shared_client: anthropic.Anthropic) -> None:
    schema = closed_object(label={"enum": ["it", "law"]})
    assert fitted(shared_client, schema, "Witty writing with wit, about law.")["label"] == "law"


def test_every_kind_of_schema_gets_a_fitting_value(shared_client: anthropic.Anthropic) -> None:
    schema = closed_object(
        title={"type": "string"},
        kind={"const": "pet"},
        size={"type": "integer"},
        weight={"type": "number"},
        tame={"type": "boolean"},
        nothing={"type": "null"},
        tags={"type": "array", "items": {"type": "string"}},
        colours={"type": "array", "items": {"enum": ["mat", "cat", "dog"]}},
        owner={"anyOf": [{"type": "null"}, {"$ref": "#/$defs/person"}]},
        maybe={"type": ["string", "null"]},
        both={"allOf": [closed_object(a={"type": "integer"}), closed_object(b={"type": "integer"})]},
        born={"type": "string", "format": "date"},
        id={"type": "string", "format": "uuid"},
    )
    schema["$defs"] = {"person": closed_object(name={"type": "string"})}
    found = fitted(shared_client, schema, "A cat sat on a mat. It purred.")
    assert set(found) == set(schema["properties"])
    assert (found["kind"], found["nothing"]) == ("pet", None)
    assert type(found["size"]) is int
    assert isinstance(found["weight"], float)
    assert isinstance(found["tame"], bool)
    assert all(isinstance(tag, str) for tag in found["tags"])
    assert found["colours"] == ["mat", "cat"]
    assert isinstance(found["owner"]["name"], str)
    assert isinstance(found["maybe"], str)
    assert set(found["both"]) == {"a", "b"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found["born"])
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", found["id"])


def test_required_properties_come_first(shared_client: anthropic.Anthropic) -> None:
    schema = closed_object(late={"type": "integer"}, early={"type": "integer"})
    schema["required"] = ["early"]
    assert list(fitted(shared_client, schema)) == ["early", "late"]


def test_a_free_string_is_an_extract_of_the_text(shared_client: anthropic.Anthropic) -> None:
    found = fitted(shared_client, closed_object(summary={"type": "string"}), "The sun rose.  It was\nwarm.")
    assert found == {"summary": "The sun rose."}
    long = fitted(shared_client, closed_object(title={"type": "string"}), "word " * 500)
    assert len(long["title"]) <= 80


def test_without_a_schema_the_answer_is_text_from_the_input(shared_client: anthropic.Anthropic) -> None:
    answer = message(shared_client, params("The sun rose. It was warm."))
    assert text_of(answer) == "The sun rose."
    assert answer.stop_reason == "end_turn"


def test_an_answer_about_an_image_tells_its_type_and_size(shared_client: anthropic.Anthropic) -> None:
    for form, size in (("PNG", (64, 32)), ("JPEG", (30, 90)), ("GIF", (5, 6)), ("WEBP", (40, 41))):
        out = io.BytesIO()
        Image.new("RGB", size).save(out, form)
        data = base64.b64encode(out.getvalue()).decode()
        source = {"type": "base64", "media_type": f"image/{form.lower()}", "data": data}
        content = [{"type": "image", "source": source}, {"type": "text", "text": "Describe it."}]
        answer = message(shared_client, params(messages=[{"role": "user", "content": content}]))
        assert f"image/{form.lower()} image of {size[0]} by {size[1]} pixels" in text_of(answer)


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "second"}])
def test_a_forced_tool_is_called_with_fitting_input(shared_client: anthropic.Anthropic, choice: Any) -> None:
    tools = [
        {"name": "first", "input_schema": closed_object(a={"type": "integer"})},
        {"name": "second", "input_schema": closed_object(b={"type": "string"})},
    ]
    answer = message(shared_client, params("Hello.", tools=tools, tool_choice=choice))
    assert answer.stop_reason == "tool_use"
    block = answer.content[0]
    assert isinstance(block, ToolUseBlock)
    assert block.id.startswith("toolu_")
    if choice["type"] == "any":
        assert (block.name, set(block.input)) == ("first", {"a"})
    else:
        assert (block.name, block.input) == ("second", {"b": "Hello."})


def test_an_answer_longer_than_max_tokens_is_cut(shared_client: anthropic.Anthropic) -> None:
    answer = message(shared_client, params("word " * 100, max_tokens=5))
    assert (answer.stop_reason, answer.usage.output_tokens) == ("max_tokens", 5)
    assert len(text_of(answer)) == 20


def test_a_stop_sequence_ends_the_answer(shared_client: anthropic.Anthropic) -> None:
    answer = message(shared_client, params("One two three.", stop_sequences=["three"]))
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "three")
    assert text_of(answer) == "One two "


def test_models_that_think_by_default_say_so(shared_client: anthropic.Anthropic) -> None:
    answer = message(shared_client, params("Hello.", model=SONNET))
    assert [block.type for block in answer.content] == ["thinking", "text"]
    details = answer.usage.output_tokens_details
    assert details is not None
    assert 0 < details.thinking_tokens < answer.usage.output_tokens
    quiet = message(shared_client, params("Hello.", model=SONNET, thinking={"type": "disabled"}))
    assert [block.type for block in quiet.content] == ["text"]


def test_the_same_request_gets_the_same_answer_under_any_id(shared_client: anthropic.Anthropic) -> None:
    first, second = (text_of(message(shared_client, params("Some words here."))) for _ in range(2))
    assert first == second


def test_text_with_surrogates_and_nul_is_answered(shared_client: anthropic.Anthropic) -> None:
    body = '{"requests": [{"custom_id": "a", "params": {"model": "claude-haiku-4-5", "max_tokens": 50, "messages": '
    body += '[{"role": "user", "content": "half \\ud800 and \\u0000 nul"}]}}]}'
    batch = shared_client.post(
        "/v1/messages/batches", content=body.encode(), cast_to=anthropic.types.messages.MessageBatch
    )
    shared_client.messages.batches.retrieve(batch.id)
    with shared_client.messages.batches.with_streaming_response.results(batch.id) as response:
        row = json.loads(response.read())
    assert row["result"]["message"]["content"][0]["text"] == "half \ud800 and \x00 nul"
