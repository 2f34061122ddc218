"""What is wrong with one request's params: the batch is accepted, its row is errored, with the API's texts."""

from __future__ import annotations

import base64
import io
from typing import Any

import anthropic
import pytest
from PIL import Image
from support.sandbox_calls import HAIKU, OLD, SONNET, answer, closed_object, json_format, params

TOOL = {"name": "note", "input_schema": {"type": "object"}}
STRICT = closed_object(a={"type": "string"})


def picture(width: int, height: int, form: str = "PNG") -> dict[str, Any]:
    """An image block of this size."""
    out = io.BytesIO()
    Image.new("1" if form == "PNG" else "L", (width, height)).save(out, form)
    data = base64.b64encode(out.getvalue()).decode()
    return {"type": "image", "source": {"type": "base64", "media_type": f"image/{form.lower()}", "data": data}}


def user(*blocks: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(blocks)}]


def problem(client: anthropic.Anthropic, wanted: dict[str, Any], **options: Any) -> tuple[str, str]:
    result = answer(client, wanted, **options)
    assert result["type"] == "errored", result
    error = result["error"]["error"]
    return error["type"], error["message"]


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (params(messages=None), "messages: Field required"),
        (params(model=None), "model: Field required"),
        (params(max_tokens=None), "max_tokens: Field required"),
        (params(max_tokens=0), "max_tokens: must be greater than or equal to 1"),
        (
            params(max_tokens=9_999_999),
            "max_tokens: 9999999 > 64000, which is the maximum allowed number of output tokens for "
            "claude-haiku-4-5-20251001",
        ),
        (params(stream=True), '"stream=True" is not supported in the Message Batches API'),
        (params(betas=["files-api"]), "betas: Extra inputs are not permitted"),
        (params(temperature=0.5), "temperature: Extra inputs are not permitted"),
        (params(top_p=0.5), "top_p: Extra inputs are not permitted"),
        (params(top_k=5), "top_k: Extra inputs are not permitted"),
        (params(wrong=1), "wrong: Extra inputs are not permitted"),
        (params(tools=[TOOL | {"extra": 1}]), "tools.0.custom.extra: Extra inputs are not permitted"),
        (params(messages=[]), "messages: at least one message is required"),
        (params(inference_geo="us"), "inference_geo: not supported for claude-haiku-4-5-20251001"),
        (
            params(output_config=json_format({"type": "object", "properties": {}})),
            "output_config.format.schema: For 'object' type, 'additionalProperties' must be explicitly set to false",
        ),
        (
            params(output_config=json_format(closed_object(a={"type": "integer", "minimum": 1}))),
            "output_config.format.schema: For 'integer' type, properties minimum are not supported",
        ),
        (
            params(system=[{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}] * 5),
            "A maximum of 4 blocks with cache_control may be provided. Found 5.",
        ),
        (
            params(tool_choice={"type": "any"}),
            "tool_choice: may only be specified while providing `tools`",
        ),
    ],
)
def test_params_are_checked_late(shared_client: anthropic.Anthropic, wanted: Any, text: str) -> None:
    assert problem(shared_client, wanted) == ("invalid_request_error", text)


@pytest.mark.parametrize("key", ["speed", "store", "previous_thread_event_id", "cache_hint", "fallbacks"])
def test_what_batches_do_not_support_is_errored(shared_client: anthropic.Anthropic, key: str) -> None:
    kind, text = problem(shared_client, params(**{key: "x"}))
    assert kind == "invalid_request_error"
    assert key in text


def test_an_unknown_model_is_not_found(shared_client: anthropic.Anthropic) -> None:
    assert problem(shared_client, params(model="claude-none")) == ("not_found_error", "model: claude-none")


def test_enabled_thinking_is_for_older_models(shared_client: anthropic.Anthropic) -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    kind, text = problem(shared_client, params(model=SONNET, max_tokens=2000, thinking=thinking))
    assert kind == "invalid_request_error"
    assert text.startswith('"thinking.type.enabled" is not supported for this model')
    wanted = params(model=HAIKU, max_tokens=2000, thinking=thinking)
    assert answer(shared_client, wanted)["type"] == "succeeded"
    assert "max_tokens" in problem(shared_client, params(model=HAIKU, max_tokens=500, thinking=thinking))[1]


def test_sampling_is_allowed_under_the_old_version_on_old_models(shared_client: anthropic.Anthropic) -> None:
    assert answer(shared_client, params(temperature=0.5), extra_headers=OLD)["type"] == "succeeded"
    kind, text = problem(shared_client, params(model=SONNET, temperature=0.5), extra_headers=OLD)
    assert kind == "invalid_request_error"
    assert "temperature" in text


def test_a_prefilled_answer_is_for_older_models(shared_client: anthropic.Anthropic) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well"}]
    assert "prefill" in problem(shared_client, params(model=SONNET, messages=messages))[1]
    assert answer(shared_client, params(messages=messages))["type"] == "succeeded"


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "note"}])
def test_forced_tool_choice_is_refused_by_some_models(shared_client: anthropic.Anthropic, choice: Any) -> None:
    for model in (SONNET, "claude-fable-5-1"):
        wanted = params(model=model, tools=[TOOL], tool_choice=choice)
        assert problem(shared_client, wanted)[1].startswith("tool_choice")
    wanted = params(model=SONNET, tools=[TOOL], tool_choice={"type": "auto"})
    assert answer(shared_client, wanted)["type"] == "succeeded"


def test_citations_do_not_go_with_a_format_nor_with_user_text(shared_client: anthropic.Anthropic) -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "Some text."}
    document = {"type": "document", "source": source, "citations": {"enabled": True}}
    wanted = params(messages=user(document), output_config=json_format(STRICT))
    assert "citations" in problem(shared_client, wanted)[1]
    cited = user({"type": "text", "text": "a", "citations": [{"type": "char_location"}]})
    assert problem(shared_client, params(messages=cited))[1].endswith("Extra inputs are not permitted")
    assert answer(shared_client, params(messages=cited), extra_headers=OLD)["type"] == "succeeded"


def test_documents_of_the_assistant_are_refused_under_the_new_version(shared_client: anthropic.Anthropic) -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "Some text."}
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [{"type": "document", "source": source}]},
        {"role": "user", "content": "b"},
    ]
    assert "assistant" in problem(shared_client, params(messages=messages))[1]
    assert answer(shared_client, params(messages=messages), extra_headers=OLD)["type"] == "succeeded"


def test_an_image_that_is_none_cannot_be_processed(shared_client: anthropic.Anthropic) -> None:
    for data in (base64.b64encode(b"no image at all").decode(), "&&&", ""):
        block = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}
        assert problem(shared_client, params(messages=user(block)))[1] == "Could not process image"


def test_an_image_must_be_what_it_says(shared_client: anthropic.Anthropic) -> None:
    block = picture(10, 10, "GIF")
    block["source"]["media_type"] = "image/png"
    assert "image/gif" in problem(shared_client, params(messages=user(block)))[1]


def test_an_image_over_ten_megabytes_is_too_large(shared_client: anthropic.Anthropic) -> None:
    block = picture(10, 10)
    block["source"]["data"] += "A" * (10 * 1024 * 1024)
    assert "exceeds 10 MB maximum" in problem(shared_client, params(messages=user(block)))[1]


def test_images_have_a_largest_side_which_is_less_among_many(shared_client: anthropic.Anthropic) -> None:
    assert "8000 pixels" in problem(shared_client, params(messages=user(picture(8001, 10))))[1]
    many = user(*[picture(10, 10)] * 20, picture(2001, 10))
    assert "many-image requests: 2000 pixels" in problem(shared_client, params(messages=many))[1]
    few = user(picture(2001, 10), picture(10, 10))
    assert answer(shared_client, params(messages=few))["type"] == "succeeded"


def test_a_prompt_longer_than_the_window_is_errored(shared_client: anthropic.Anthropic) -> None:
    kind, text = problem(shared_client, params("word " * 200_000))
    assert kind == "invalid_request_error"
    assert text.startswith("prompt is too long: ")


def test_the_extended_output_beta_lifts_the_cap_for_the_whole_batch(shared_client: anthropic.Anthropic) -> None:
    wanted = params(model=SONNET, max_tokens=300_000)
    assert "300000 > 128000" in problem(shared_client, wanted)[1]
    beta = {"anthropic-beta": "output-300k-2026-03-24"}
    assert answer(shared_client, wanted, extra_headers=beta)["type"] == "succeeded"
