"""What classify, summarise and alt_text ask for with each of their settings, and what they make of the answers."""

from __future__ import annotations

import json

import pytest
from support.shipped import IMAGE, REGISTRY, output, parts, prompt, schema

from webapp.errors import InputError, InvalidOutput
from webapp.hooks import Subject


def test_a_definition_stands_beside_its_label() -> None:
    text = prompt("classify", definitions="ham: what one\tis glad of\n\nspam: anything sold: {all} of it")
    assert "- spam: anything sold: {all} of it\n- ham: what one\tis glad of\n" in text


@pytest.mark.parametrize(
    ("definitions", "words"),
    [("eggs: no", r"there is no 'eggs'\. There are: spam, ham"), ("spam", "has no colon"), ("ham:", "says nothing of")],
)
def test_a_definition_of_no_label_is_refused(definitions: str, words: str) -> None:
    with pytest.raises(InputError, match=f"setting 'definitions': line 1.*{words}"):
        prompt("classify", definitions=definitions)


def test_several_labels_are_a_list_of_different_ones_the_best_first() -> None:
    assert schema("classify", most_labels="2")["properties"]["labels"]["minItems"] == 1
    assert "at most 2" in prompt("classify", most_labels="2")
    answer = {"labels": ["c", "a", "c", "b"]}
    assert output("classify", answer, labels="a,b,c", most_labels="2") == {"labels": ["c", "a"]}


@pytest.mark.parametrize("answer", [{"labels": []}, {"labels": ["eggs"]}, {"label": "spam"}, {"labels": "spam"}])
def test_several_labels_that_were_not_asked_for_are_invalid(answer: object) -> None:
    with pytest.raises(InvalidOutput):
        output("classify", answer, most_labels="2")


def test_other_is_a_label_of_its_own_when_it_is_allowed() -> None:
    assert schema("classify", other="allowed")["properties"]["label"]["enum"] == ["spam", "ham", "other"]
    assert output("classify", {"label": "other"}, other="allowed") == {"label": "other"}
    with pytest.raises(InvalidOutput, match="none of those asked for"):
        output("classify", {"label": "other"})


def test_other_does_not_stand_beside_a_label_that_fits() -> None:
    answer = {"labels": ["other", "ham"]}
    assert output("classify", answer, most_labels="2", other="allowed") == {"labels": ["ham"]}
    # Here it is a label like all others.
    labels = {"labels": ["other", "ham"]}
    assert output("classify", labels, labels="ham,other", most_labels="2") == labels


def test_a_suggestion_comes_with_other_and_with_nothing_else() -> None:
    said = {"suggestion": " job application "}
    found = output("classify", {"label": "other", **said}, other="suggest")
    assert found == {"label": "other", "suggestion": "job application"}
    assert output("classify", {"label": "ham", **said}, other="suggest") == {"label": "ham", "suggestion": None}
    assert output("classify", {"label": "other", "suggestion": " "}, other="suggest")["suggestion"] is None


def test_an_other_policy_needs_the_name_to_be_free() -> None:
    with pytest.raises(InputError, match="'Other' is one of the labels: take it out"):
        prompt("classify", labels="a,Other", other="allowed")
    assert "- Other" in prompt("classify", labels="a,Other")


def test_confidence_is_asked_for_and_given_only_on_request() -> None:
    assert "confidence" not in prompt("classify") and "confidence" in prompt("classify", confidence="true")
    answer = {"label": "ham", "confidence": "high"}
    assert output("classify", answer, confidence="true") == answer
    assert output("classify", answer) == {"label": "ham"}
    with pytest.raises(InvalidOutput, match="how sure"):
        output("classify", {"label": "ham"}, confidence="true")


def test_a_summary_is_as_long_as_it_was_asked_for() -> None:
    assert "at most 80 words" in prompt("summarise", words="80")
    assert "at most 4 points" in prompt("summarise", bullets="4") and "one point" in prompt("summarise", bullets="1")
    assert "sentence" not in prompt("summarise", words="80").partition("\n\n")[2].partition("\n\n")[0]
    with pytest.raises(InputError, match="setting 'bullets': the length is given in words already"):
        prompt("summarise", words="80", bullets="4")


def test_points_are_a_list_of_lines_and_no_more_than_were_asked_for() -> None:
    answer = {"bullets": [" one\n line ", " ", "two", "three"]}
    assert output("summarise", answer, bullets="2") == {"bullets": ["one line", "two"]}
    for empty in ({"bullets": []}, {"bullets": [" "]}, {"summary": "x"}):
        with pytest.raises(InvalidOutput, match="is empty"):
            output("summarise", empty, bullets="2")


def test_style_audience_and_focus_are_told() -> None:
    text = prompt("summarise", style="plain", audience="nurses", focus="Who pays?")
    assert "Style: plain." in text and "read it: nurses\nChoose" in text and "most: Who pays?\nGive it" in text
    assert "Style" not in prompt("summarise")


def test_the_context_of_all_images_and_of_one_are_told_apart() -> None:
    image = Subject("image", "i", {"caption": " A <b>cat</b>. ", "tags": ["a", 1]}, image=IMAGE.image)
    shared, own = parts("alt_text", image, context="a shop", context_field="caption")
    assert "for: a shop" in shared["system"][0]["text"] and "between <context>" in shared["system"][0]["text"]
    _, question = own["messages"][0]["content"]
    assert question["text"].startswith("<context>\nA <b>cat</b>.\n</context>\n\nWrite")
    _, question = parts("alt_text", image, context_field="tags")[1]["messages"][0]["content"]
    assert '["a", 1]' in question["text"]


@pytest.mark.parametrize("field", ["gone", ""])
def test_an_image_without_context_is_described_all_the_same(field: str) -> None:
    _, question = parts("alt_text", context_field=field)[1]["messages"][0]["content"]
    assert question["text"] == "Write the alternative text for this image."


def test_a_decorative_image_has_an_empty_text_only_where_that_is_wished() -> None:
    answer = {"decorative": True, "alt_text": "A line"}
    assert output("alt_text", answer, decorative="empty") == {"alt_text": "", "decorative": True}
    plain = {"decorative": False, "alt_text": "A cat"}
    assert output("alt_text", plain, decorative="empty") == {"alt_text": "A cat", "decorative": False}
    assert output("alt_text", answer) == {"alt_text": "A line"}
    with pytest.raises(InvalidOutput, match="is empty"):
        output("alt_text", {"decorative": False, "alt_text": ""}, decorative="empty")


@pytest.mark.parametrize(
    ("name", "stored", "answer"),
    [
        ("classify", {"labels": ["spam", "ham"]}, {"label": "ham"}),
        ("summarise", {"sentences": 3, "language": None}, {"summary": "s"}),
        ("alt_text", {"language": "English", "max_characters": 125}, {"alt_text": "a"}),
    ],
)
def test_settings_and_answers_of_the_first_version_are_still_read(
    name: str, stored: dict[str, object], answer: object
) -> None:
    settings = REGISTRY.parse_settings(name, {**stored, "model": "m", "max_tokens": 5, "effort": None})
    assert output(name, json.dumps(answer), **settings.model_dump(mode="json")) == answer
