"""What `extract` takes for a declaration of fields, what it asks, and what it makes of values and their quotes."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.shipped import REGISTRY, output, prompt, schema

from webapp.errors import InputError, InvalidOutput
from webapp.hooks import Message, Subject, calls

FIELDS = """
invoice: needed text, the number: of the invoice

total: number, what is to be paid, with tax
copies: integer
paid: boolean, whether it is paid
due: date, the last day to pay
kind: one of invoice | credit note, which it is
items: list, what was bought
"""
NAMES = ("invoice", "total", "copies", "paid", "due", "kind", "items")
TEXT = "Invoice A-0017:  “two” hats\nand a scarf. Total due: EUR 1,250.00 – by 31 March 2026."
LETTER = Subject("document", "l1", {}, text=TEXT)


def answered(evidence: str = "none", per_document: str = "one", **values: list[Any]) -> Any:
    answer: Any = {**{name: [] for name in NAMES}, **values}
    answer = answer if per_document == "one" else {"records": [answer]}
    return output("extract", answer, subject=LETTER, fields=FIELDS, evidence=evidence, per_document=per_document)


def said(quote: str, value: object) -> dict[str, object]:
    return {"quote": quote, "value": value}


def test_the_fields_are_told_with_their_types_and_meanings() -> None:
    text = prompt("extract", fields=FIELDS)
    assert (
        "- invoice (text; needed): the number: of the invoice\n- total (number): what is to be paid, with tax" in text
    )
    assert "- copies (whole number)\n" in text and "- kind (one of: invoice | credit note): which it is" in text


def test_the_schema_is_made_of_the_fields_without_bounds_and_unions() -> None:
    fields = schema("extract", fields=FIELDS)["properties"]
    value = {name: part["items"]["properties"]["value"] for name, part in fields.items()}
    assert value["kind"] == {"type": "string", "enum": ["invoice", "credit note"]}
    assert value["due"] == {"type": "string", "format": "date"}
    assert [value[name]["type"] for name in ("total", "copies", "paid")] == ["number", "integer", "boolean"]
    assert list(fields["total"]["items"]["properties"]) == ["quote", "value"]
    bare = schema("extract", fields=FIELDS, evidence="none", per_document="many")
    assert bare["properties"]["records"]["items"]["properties"]["total"] == {
        "type": "array",
        "items": {"type": "number"},
    }
    assert not re.search("anyOf|minI|maxI|minimum|maxLength", json.dumps(schema("extract", fields=FIELDS)))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("", "declare at least one field"),
        ("total", "line 1, 'total', has no colon"),
        ("total: money, to pay", "line 1: 'total' has the type 'money'; there are text, number"),
        ("a: text\nto tal: text", "line 2: 'to tal' is no name"),
        ("a: text\na: date", "'a' is there twice"),
        ("a: text\nA: date", "line 2: 'a' and 'A' differ in case only"),
        ("evidence: text", "'evidence' is a name of the output's own"),
        ("a: one of b", "'a' needs at least two different values"),
        ("a: one of b|b", "'a' needs at least two different values"),
        ("a: one of b||c", "'a' needs at least two different values"),
        ("a: needed", "'a' has the type ''"),
        ("\n".join(f"a{n}: text" for n in range(101)), "there are 101 fields; at most 100"),
    ],
)
def test_a_declaration_that_is_none_is_refused_with_its_line(fields: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        prompt("extract", fields=fields)


def test_values_are_given_by_their_fields_and_what_is_not_there_is_null() -> None:
    found = answered(invoice=[" A-0017 "], total=[1250], due=["2026-03-31"], items=["hat", " ", "hat", "scarf"])
    nothing = {"copies": None, "paid": None, "kind": None}
    assert found == {"invoice": "A-0017", "total": 1250, "due": "2026-03-31", "items": ["hat", "scarf"], **nothing}
    assert answered(invoice=["A", "B"], paid=[False], copies=[2.0])["invoice"] == "A"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"total": ["1,250"]}, r"field 'total': '1,250' is no number"),
        ({"total": [True]}, "field 'total': 'True' is no number"),
        ({"copies": [1.5]}, r"field 'copies': '1.5' is no whole number"),
        ({"copies": [1e300 * 1.1]}, None),
        ({"paid": ["yes"]}, "field 'paid': 'yes' is neither true nor false"),
        ({"paid": [0]}, "field 'paid': '0' is neither"),
        ({"due": ["2026-02-30"]}, "field 'due': '2026-02-30' is no date that there is"),
        ({"due": ["20260330"]}, "is no date"),
        ({"due": ["2026-W01-1"]}, "is no date"),
        ({"kind": ["reminder"]}, "field 'kind': 'reminder' is none of invoice, credit note"),
        ({"items": [["hat"]]}, "field 'items': .* is no list of texts"),
        ({"invoice": []}, "field 'invoice' is needed, and the answer gives no value$"),
        ({"invoice": [" "]}, "field 'invoice' is needed"),
        ({"total": 12}, "field 'total' is no list"),
        ({"total": None}, "field 'total' is no list"),
    ],
)
def test_a_value_of_another_type_is_invalid_and_its_field_named(values: dict[str, Any], words: str | None) -> None:
    given = {"invoice": ["A"], **values}
    if words is None:
        assert answered(**given)["copies"] == int(values["copies"][0])
        return
    with pytest.raises(InvalidOutput, match=words):
        answered(**given)


def test_a_number_that_is_none_or_too_large_is_invalid() -> None:
    for number in ("1e999", "NaN", "-Infinity"):
        with pytest.raises(InvalidOutput):
            output("extract", '{"total": [%s]}' % number, evidence="none")  # noqa: UP031 - braces all over


def test_an_answer_without_a_field_is_invalid() -> None:
    with pytest.raises(InvalidOutput, match="field 'total' is not in the answer"):
        output("extract", {"sum": [1]})
    with pytest.raises(InvalidOutput, match="field 'total' has an entry without its quote"):
        output("extract", {"total": [1]})


def test_a_value_stands_with_the_words_that_prove_it() -> None:
    invoice = [said('invoice a-0017: "Two" hats and', "A-0017")]
    found = answered("drop", invoice=invoice, total=[said("EUR 1,250.00 - by", 1250)], items=[said("a scarf", "scarf")])
    assert (found["invoice"], found["total"], found["items"], found["unsupported"]) == ("A-0017", 1250, ["scarf"], [])
    assert found["evidence"]["total"] == "EUR 1,250.00 - by"
    assert (found["evidence"]["due"], found["evidence"]["items"]) == (None, ["a scarf"])


def test_a_quote_that_is_not_in_the_document_is_dealt_with_as_the_settings_say() -> None:
    invoice = [said("A-0017", "A-0017")]
    total, items = [said("Total: 99", 99)], [said("hats", "hat"), said("gloves", "glove")]
    dropped = answered("drop", invoice=invoice, total=total, items=items)
    assert (dropped["total"], dropped["items"], dropped["unsupported"]) == (None, ["hat"], ["total", "items"])
    assert (dropped["evidence"]["total"], dropped["evidence"]["items"]) == (None, ["hats"])
    flagged = answered("flag", invoice=invoice, total=total, items=items)
    assert (flagged["total"], flagged["items"], flagged["unsupported"]) == (99, ["hat", "glove"], ["total", "items"])
    with pytest.raises(InvalidOutput, match="field 'total': 'Total: 99' does not stand in the document"):
        answered("refuse", invoice=invoice, total=total)
    with pytest.raises(InvalidOutput, match=r"field 'invoice' is needed, and .* no value that it can prove"):
        answered("drop", invoice=[said("", "A-0017")])


@pytest.mark.parametrize("evidence", ["drop", "flag", "refuse"])
def test_of_several_values_for_one_the_first_that_is_proved_is_taken(evidence: str) -> None:
    found = answered(evidence, invoice=[said("made up", "B"), said("A-0017", "A-0017")])
    assert (found["invoice"], found["unsupported"]) == ("A-0017", [])


def test_many_records_are_a_list_and_the_one_at_fault_is_told() -> None:
    assert answered(per_document="many", invoice=["A"])["records"][0]["invoice"] == "A"
    assert output("extract", {"records": []}, per_document="many") == {"records": []}
    with pytest.raises(InvalidOutput, match="record 1, field 'invoice' is needed"):
        answered(per_document="many")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["quote", "value", "records", *NAMES]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON | st.fixed_dictionaries(dict.fromkeys(NAMES, JSON)), st.sampled_from(["none", "drop", "flag"]))
def test_whatever_is_answered_becomes_an_output_of_the_declared_types_or_is_invalid(answer: Any, evidence: str) -> None:
    try:
        found = output("extract", answer, subject=LETTER, fields=FIELDS, evidence=evidence)
    except InvalidOutput as error:
        assert "raised" not in str(error)
        return
    assert set(NAMES) <= set(found) and isinstance(found["invoice"], str) and isinstance(found["items"], list)
    assert found["kind"] in ("invoice", "credit note", None)


TYPES = st.sampled_from(["text", "number", "integer", "boolean", "date", "list", "one of a|b c"])
NAME = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True).filter(
    lambda name: name not in ("evidence", "unsupported")
)


@given(st.dictionaries(NAME, st.tuples(st.booleans(), TYPES, st.text("abc ,:|", max_size=9)), min_size=1, max_size=9))
def test_every_declaration_that_keeps_the_rules_is_read(fields: dict[str, tuple[bool, str, str]]) -> None:
    fields = {name: declared for name, declared in fields.items() if name != "records"} or {"a": (True, "text", "")}
    lines = [f"{name}: {'needed ' * needed}{kind},{words}" for name, (needed, kind, words) in fields.items()]
    assert list(schema("extract", fields="\n".join(lines))["properties"]) == list(fields)


@given(st.text(max_size=60))
def test_any_text_is_a_declaration_or_refused_with_its_reason(text: str) -> None:
    try:
        settings = REGISTRY.parse_settings("extract", {"fields": text})
    except InputError as error:
        assert "setting 'fields'" in str(error) and "raised" not in str(error)
    else:
        assert calls.shared_params(REGISTRY.task("extract"), settings)


def test_a_text_that_is_gone_proves_nothing() -> None:
    task = REGISTRY.task("extract")
    settings = REGISTRY.parse_settings(task, {"fields": "total: number"})
    message = Message({"content": [{"type": "text", "text": '{"total": [{"quote": "12", "value": 12}]}'}]})
    found = calls.process(task, Subject("document", "x", {}), message, settings)
    assert found == {"total": None, "evidence": {"total": None}, "unsupported": ["total"]}
