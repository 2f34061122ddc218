"""What plugins are given is frozen, and reads nasty answers without breaking."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from pydantic import BaseModel

from webapp.hooks import Image, InputError, InvalidOutput, Message, ModelSettings, Subject

IMAGE = Image(sha256="ab" * 32, media_type="image/png", width=2, height=3)


class Answer(BaseModel):
    label: str


def message(text: str, **more: Any) -> Message:
    return Message({"content": [{"type": "text", "text": text}], "stop_reason": "end_turn", **more})


def test_a_subject_is_read_only() -> None:
    source = {"a": 1}
    subject = Subject("document", "k", source)
    with pytest.raises(FrozenInstanceError):
        subject.key = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        subject.data["a"] = 2  # type: ignore[index]


def test_a_subject_says_what_it_lacks() -> None:
    with pytest.raises(InputError, match="record 'k' has no text"):
        Subject("document", "k", {}, text=" \n").require_text()
    with pytest.raises(InputError, match="record 'k' has no image"):
        Subject("document", "k", {}).require_image()
    assert Subject("document", "k", {}, text="t").require_text() == "t"
    assert Subject("image", "k", {}, image=IMAGE).require_image() is IMAGE


def test_an_image_block_holds_the_image_in_place_of_its_bytes() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": IMAGE}
    assert IMAGE.block() == {"type": "image", "source": source}


def test_a_message_reads_what_the_api_gave() -> None:
    answer = message('{"label": "a"}', model="m", usage={"output_tokens": 3})
    assert (answer.stop_reason, answer.model, answer.usage["output_tokens"]) == ("end_turn", "m", 3)
    assert answer.structured(Answer) == Answer(label="a")


def test_text_is_joined_and_thinking_is_passed_over() -> None:
    blocks = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert Message({"content": blocks}).text == "ab"


@pytest.mark.parametrize("raw", [{}, {"content": None, "usage": 3, "stop_reason": 4}, {"content": ["x", 1, None]}])
def test_a_strange_message_reads_as_empty(raw: dict[str, Any]) -> None:
    answer = Message(raw)
    assert (answer.text, answer.content, answer.stop_reason, dict(answer.usage)) == ("", (), None, {})
    with pytest.raises(InvalidOutput, match="no content block"):
        answer.structured(Answer)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("refusal", "declined"),
        ("max_tokens", "cut at max_tokens: raise max_tokens"),
        ("pause_turn", "pause_turn"),
        ("model_context_window_exceeded", "context window was full"),
    ],
)
def test_an_incomplete_answer_says_why_though_its_json_is_whole(reason: str, words: str) -> None:
    with pytest.raises(InvalidOutput, match=words):
        message('{"label": "a"}', stop_reason=reason).structured(Answer)


def test_a_refusal_gives_the_explanation_of_the_api() -> None:
    details = {"explanation": "about weapons"}
    with pytest.raises(InvalidOutput, match="declined to answer: about weapons"):
        message("", stop_reason="refusal", stop_details=details).require_complete()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not JSON"),
        ('{"label": "a', "is not JSON: Unterminated string .* at character"),
        ('{"label": NaN}', "NaN is not a JSON number"),
        ("[" * 100_000, "nested too deep"),
        ("1" * 10_000, "is not JSON"),
        ("[]", "does not fit"),
        ("{}", "label: Field required"),
        ('{"label": 3}', "label: Input should be a valid string"),
    ],
)
def test_an_answer_that_is_not_the_json_asked_for_is_invalid(text: str, words: str) -> None:
    with pytest.raises(InvalidOutput, match=words):
        message(text).structured(Answer)


def test_an_answer_without_text_has_no_json() -> None:
    with pytest.raises(InvalidOutput, match="no text block"):
        Message({"content": [{"type": "tool_use", "input": {}}]}).structured(Answer)


def test_nul_surrogates_html_and_megabytes_come_through_exactly() -> None:
    for label in ("a\x00b", "\ud800", "<script>alert(1)</script>", "x" * 5_000_000):
        escaped = label.replace("\x00", "\\u0000").replace("\ud800", "\\ud800")
        assert message('{"label": "' + escaped + '"}').structured(Answer).label == label


def test_model_settings_stand_for_their_parameters() -> None:
    assert ModelSettings().base_params() == {"model": "claude-haiku-5-5", "max_tokens": 2048}
    params = ModelSettings(effort="low").base_params({"type": "object"})
    assert params["output_config"] == {
        "effort": "low",
        "format": {"type": "json_schema", "schema": {"type": "object"}},
    }
