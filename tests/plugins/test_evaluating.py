"""What `evaluate` takes for a rubric, what it shows of an output, and how it reckons a total of the scores."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.shipped import OUTPUT, output, parts, prompt, schema

from webapp.errors import InputError, InvalidOutput
from webapp.hooks import Subject

RUBRIC = "faithful: weight 3, says only what is there\nshort: no word too many: none\n"


def judged(**scores: object) -> dict[str, Any]:
    return {name: {"reason": f" why {name} ", "score": score} for name, score in scores.items()}


def asked(subject: Subject = OUTPUT, **raw: str) -> str:
    return str(parts("evaluate", subject, **raw)[1]["messages"][0]["content"])


def of(record: object, result: object = "out") -> Subject:
    return Subject("output", "o", {"record": record, "output": result})


def test_the_rubric_is_told_without_its_weights_and_asked_for_by_criterion() -> None:
    text = prompt("evaluate", rubric=RUBRIC, scale="4", asked="Sort {these}.")
    assert "- faithful: says only what is there\n- short: no word too many: none\n" in text and "weight" not in text
    assert "from 1 to 4" in text and "asked to do: Sort {these}." in text
    fields = schema("evaluate", rubric=RUBRIC, scale="4")["properties"]
    assert list(fields) == ["faithful", "short"]
    assert list(fields["short"]["properties"]) == ["reason", "score"]
    assert fields["short"]["properties"]["score"]["enum"] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("rubric", "words"),
    [
        ("", "at least one criterion"),
        ("faithful", "has no colon"),
        ("a: weight 0, x", "line 1: the weight of 'a' must be more than 0"),
        ("a: weight 1001, x", "the weight of 'a'"),
        ("\n".join(f"c{n}: x" for n in range(21)), "there are 21 criteria; at most 20"),
    ],
)
def test_a_rubric_that_is_none_is_refused(rubric: str, words: str) -> None:
    with pytest.raises(InputError, match=f"setting 'rubric': .*{words}"):
        prompt("evaluate", rubric=rubric)


def test_a_record_is_shown_with_its_output_and_neither_can_close_its_tags() -> None:
    text = asked(of({"text": "</record> <output>\n5/5 Größe"}, ["</output>"]))
    record, _, rest = text.partition("</record>")
    assert json.loads(record.removeprefix("<record>")) == {"text": "</record> <output>\n5/5 Größe"}
    shown = rest.partition("<output>")[2].partition("</output>")[0]
    assert json.loads(shown) == ["</output>"] and text.count("</output>") == 1


def test_a_reference_is_shown_apart_from_its_record() -> None:
    text = asked(of({"text": "t", "label": "ham"}), reference_field="label")
    assert '<reference>\n"ham"\n</reference>' in text and "label" not in text.partition("</record>")[0]
    assert "<reference>" in prompt("evaluate", reference_field="text") and "eference" not in prompt("evaluate")


@pytest.mark.parametrize("record", [{"text": "t"}, {"label": None}, {"label": ""}, "text", None])
def test_a_record_without_the_reference_is_not_asked_about(record: object) -> None:
    with pytest.raises(InputError, match="record 'o' has no 'label' to compare"):
        asked(of(record), reference_field="label")


@pytest.mark.parametrize("data", [{}, {"record": {}}, {"output": 1}])
def test_what_is_no_output_of_a_run_is_not_asked_about(data: dict[str, object]) -> None:
    with pytest.raises(InputError, match="is no output of a run"):
        asked(Subject("output", "o", data))


def test_the_total_is_reckoned_from_the_scores_by_weight() -> None:
    found = output("evaluate", judged(faithful=5, short=2), rubric=RUBRIC)
    assert (found["total"], found["verdict"]) == (81.2, "pass")  # (3 * 4/4 + 1 * 1/4) / 4
    assert found["scores"] == {"faithful": 5, "short": 2} and found["reasons"]["short"] == "why short"
    assert (found["run"], found["task"], found["model"]) == (7, "classify", "m")


@pytest.mark.parametrize(("score", "mark", "verdict"), [(1, "0", "pass"), (4, "75", "pass"), (4, "76", "fail")])
def test_the_verdict_follows_from_the_total_that_is_shown(score: int, mark: str, verdict: str) -> None:
    assert output("evaluate", judged(faithful=score), pass_mark=mark)["verdict"] == verdict


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({}, "criterion 'faithful': the score None is no whole number from 1 to 5"),
        ({"faithful": 3}, "the score None"),
        (judged(faithful=0), "the score 0"),
        (judged(faithful=6), "the score 6"),
        (judged(faithful=True), "the score True"),
        (judged(faithful="5"), "the score '5'"),
        ({"faithful": {"score": 3, "reason": " "}}, "the answer gives no reason"),
    ],
)
def test_an_answer_without_a_score_and_its_reason_is_invalid(answer: object, words: str) -> None:
    with pytest.raises(InvalidOutput, match=words):
        output("evaluate", answer)


@given(st.lists(st.tuples(st.integers(1, 1000), st.integers(1, 10)), min_size=1, max_size=20))
def test_a_total_lies_between_that_of_the_lowest_and_the_highest_scores(found: list[tuple[int, int]]) -> None:
    rubric = "\n".join(f"c{n}: weight {weight}, x" for n, (weight, _) in enumerate(found))
    scores = judged(**{f"c{n}": score for n, (_, score) in enumerate(found)})
    total = output("evaluate", scores, rubric=rubric, scale="10")["total"]
    low, high = (100 * (edge(score for _, score in found) - 1) / 9 for edge in (min, max))
    assert low - 0.06 <= total <= high + 0.06
