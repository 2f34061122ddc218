"""Reading the owner's input: what becomes a record, what is named as a problem, what stops the import."""

from __future__ import annotations

import codecs
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from read_inputs import read, write

from webapp.errors import InputError
from webapp.records import record as record_module
from webapp.records.reading import RAW_BYTES, Problem, Record, problems_report, read_records
from webapp.records.record import Admission


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    return tmp_path / "docs.jsonl"


def only_problem(path: Path, content: bytes | str) -> Problem:
    """The problem of a second line that stands between two good ones."""
    line = content if isinstance(content, bytes) else content.encode()
    write(path, b'{"key":"a","text":"A"}\n' + line + b'\n{"key":"z","text":"Z"}\n')
    records, problems = read(path)
    assert [(r.key, r.position) for r in records] == [("a", 0), ("z", 1)]
    (problem,) = problems
    assert problem.where == "docs.jsonl, line 2"
    return problem


# ---- JSONL: what is taken


def test_a_record_is_its_line_byte_for_byte(docs: Path) -> None:
    line = '{ "text" : "é \\u00e9 \\u0000 <b>",\t"n": 1.50e1, "big": 123456789012345678901234567890, "key":"a" }'
    write(docs, f"  {line} \r\n\n   \n")
    (record,), problems = read(docs)
    assert record == Record(0, "a", "document", line.encode(), None)
    assert not problems


def test_lone_surrogates_stay_the_escapes_they_are(docs: Path) -> None:
    line = b'{"key":"a","text":"half \\ud800 of it"}'
    (record,), _ = read(write(docs, line))
    assert record.data == line


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("7", "7"),
        ("-0", "0"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ('"007"', "007"),
        ('"two words, \\"quoted\\" 🙂"', 'two words, "quoted" 🙂'),
        ('" padded "', " padded "),
        ('"line\\nbreak"', "line\nbreak"),
        (json.dumps("k" * 1000), "k" * 1000),
    ],
)
def test_text_and_whole_numbers_are_keys(docs: Path, key: str, text: str) -> None:
    (record,), _ = read(write(docs, f'{{"key":{key},"text":"x"}}\n'))
    assert record.key == text


def test_byte_order_marks_of_utf8_are_passed_over_also_between_joined_files(docs: Path) -> None:
    mark = codecs.BOM_UTF8
    records, problems = read(write(docs, mark + b'{"key":"a","text":"A"}\n' + mark + b'{"key":"b","text":"B"}\n'))
    assert [r.data for r in records] == [b'{"key":"a","text":"A"}', b'{"key":"b","text":"B"}']
    assert not problems


def test_the_fields_can_be_named(docs: Path) -> None:
    (record,), _ = read(write(docs, '{"id":3,"body":"hello"}\n'), key_field="id", text_field="body")
    assert record.key == "3"


def test_quotes_and_colons_in_text_are_not_taken_for_doubled_names(docs: Path) -> None:
    line = json.dumps({"key": "a", "text": 'he said "key": "text" : twice', "in": [{"a": 1}, {"a": 2}]})
    (record,), problems = read(write(docs, line))
    assert record.data == line.encode()
    assert not problems


def test_the_last_line_needs_no_line_feed_and_any_ending_case_will_do(tmp_path: Path) -> None:
    for name in ("a.JSONL", "b.ndjson"):
        records, _ = read(write(tmp_path / name, '{"key":"a","text":"A"}\n{"key":"b","text":"B"}'))
        assert [r.key for r in records] == ["a", "b"]


def test_a_line_of_many_megabytes_is_read(docs: Path) -> None:
    text = "x" * (33 << 20)
    (record,), _ = read(write(docs, f'{{"key":"a","text":"{text}"}}\n'))
    assert len(record.data) == len(text) + len('{"key":"a","text":""}')


# ---- JSONL: what is named as a problem


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"key":"b", text:"B"}', "it is not JSON: Expecting property name enclosed in double quotes at column 13"),
        ('  {"key":"b","text":tru}', "it is not JSON: Expecting value at column 21"),
        ('{"key":"b","text":"B"} {}', "it is not JSON: Extra data at column 24"),
        ("hello", "it is not JSON: Expecting value at column 1"),
        ('{"key":"b","text":"\x01"}', "it is not JSON: Invalid control character at column 20"),
        ('{"key":"b","text":"B","n":NaN}', "it is not JSON: NaN is no JSON number"),
        ('{"key":"b","text":"B","n":-Infinity}', "it is not JSON: -Infinity is no JSON number"),
        ('["b","B"]', "it is a list, not a JSON object"),
        ('"b"', "it is text, not a JSON object"),
        ("null", "it is null, not a JSON object"),
        ('"\\ud800"', "it is text, not a JSON object"),
        ('{"key":"b","key":"c","text":"B"}', 'two members of one object are named "key"'),
        ('{"key":"b","text":"B","in":[{"x" :1, "x":2}]}', 'two members of one object are named "x"'),
        ('{"key" :"b","key":"c","text":"\\":"}', 'two members of one object are named "key"'),
        ('{"text":"B"}', 'it has no "key"'),
        ('{"key":"","text":"B"}', "its key is empty"),
        ('{"key":" \\t","text":"B"}', "its key is empty"),
        ('{"key":1.5,"text":"B"}', 'its key in "key" is a number with a fraction'),
        ('{"key":1e999,"text":"B"}', 'its key in "key" is a number with a fraction'),
        ('{"key":true,"text":"B"}', 'its key in "key" is true or false'),
        ('{"key":null,"text":"B"}', 'its key in "key" is null'),
        ('{"key":["b"],"text":"B"}', 'its key in "key" is a list'),
        ('{"key":"b\\u0000","text":"B"}', "its key holds a NUL character"),
        ('{"key":"b\\ud800","text":"B"}', "its key holds half a character (a lone surrogate)"),
        ('{"key":"a","text":"B"}', 'the key "a" is already that of line 1'),
        ('{"key":"b"}', 'it has no "text"'),
        ('{"key":"b","text":""}', 'its text in "text" is empty'),
        ('{"key":"b","text":" \\n "}', 'its text in "text" is empty'),
        ('{"key":"b","text":5}', 'its "text" is a number, not text'),
        ('{"key":"b","text":null}', 'its "text" is null, not text'),
        (json.dumps({"key": "k" * 1001, "text": "B"}), "its key has 1,001 characters; 1,000 are allowed"),
        (json.dumps({"key": "🙂" * 700, "text": "B"}), "its key has 2,800 bytes in UTF-8; 2,400 are allowed"),
        ("[" * 5000 + "]" * 5000, "its JSON is nested too deeply"),
        (b'{"key":"b","text":"caf\xe9"}', "it is not UTF-8: 0xE9 at byte 45 of the file, counted from 0"),
    ],
)
def test_a_bad_line_is_named_and_the_rest_goes_on(docs: Path, line: bytes | str, fault: str) -> None:
    problem = only_problem(docs, line)
    assert problem.fault == fault
    assert problem.remedy
    assert problem.raw == (line if isinstance(line, bytes) else line.encode()).strip()


def test_a_missing_field_names_the_option_and_the_fields_there_are(docs: Path) -> None:
    problem = only_problem(docs, '{"id":"b","body":"B"}')
    assert str(problem) == (
        'docs.jsonl, line 2: it has no "key"; add it, or name another field with --key-field (it has "id", "body").'
    )


def test_an_encoding_fault_tells_how_to_convert(docs: Path) -> None:
    assert "iconv" in only_problem(docs, b'{"key":"b","text":"\xff"}').remedy


def test_a_number_of_thousands_of_digits_is_no_accident(docs: Path) -> None:
    line = f'{{"key":"a","text":"A","n":{"9" * 5000}}}'
    (record,), _ = read(write(docs, line))
    assert record.data == line.encode()


def test_a_key_of_a_bad_record_is_free_for_a_good_one(docs: Path) -> None:
    records, problems = read(write(docs, '{"key":"a","text":""}\n{"key":"a","text":"A"}\n'))
    assert [r.key for r in records] == ["a"]
    assert len(problems) == 1


def test_a_record_of_the_wrong_size_for_any_request_is_a_problem_and_memory_is_spared(
    docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_module, "MAX_RECORD_BYTES", 3 << 20)
    problem = only_problem(docs, b'{"key":"b","text":"' + b"x" * (5 << 20) + b'"}')
    assert problem.fault == "it is longer than 3 MB"
    assert len(problem.raw) == RAW_BYTES


def test_a_problem_is_one_line_whatever_its_names_hold(tmp_path: Path) -> None:
    path = write(tmp_path / "a\nb\x1b[31m.jsonl", '{"key":"\\u202ek\\nk","text":"A"}\n' * 2)
    _, (problem,) = read(path)
    assert str(problem) == (
        'a\\u000ab\\u001b[31m.jsonl, line 2: the key "\\u202ek\\u000ak" is already that of line 1; '
        "give each record its own key."
    )


@given(
    st.lists(
        st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text() | st.lists(st.text()), max_size=4),
        min_size=1,
        max_size=20,
    ),
    st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_any_json_with_a_key_and_a_text_comes_through_unchanged(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, object]], ascii_only: bool
) -> None:
    lines = [
        json.dumps({**row, "key": f"k{n}", "text": "t" + repr(row)}, ensure_ascii=ascii_only)
        for n, row in enumerate(rows)
    ]
    path = write(tmp_path_factory.mktemp("any") / "docs.jsonl", "\n".join(lines))
    records, problems = read(path)
    assert [r.data.decode() for r in records] == lines
    assert not problems


@given(st.binary(max_size=300))
@settings(deadline=None, max_examples=200)
def test_no_bytes_upset_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    for name in ("docs.jsonl", "docs.csv"):
        path = write(tmp_path_factory.mktemp("rubbish") / name, b"key,text\n" * (name == "docs.csv") + content)
        try:
            found = list(read_records(path))
        except InputError:
            continue
        for record in found:
            if isinstance(record, Record):
                json.loads(record.data)


def test_doubled_keys_are_found_across_a_large_file(tmp_path: Path) -> None:
    admission = Admission(tmp_path / "docs.jsonl", "key", "text")
    doubled = {40_000: 1, 70_001: 39_999}
    for line in range(1, 100_001):
        key = str(doubled.get(line, line))
        found = admission.admit(line, {"key": key, "text": "x"}, b"{}", b"{}")
        if line in doubled:
            assert isinstance(found, Problem)
            assert found.fault == f'the key "{key}" is already that of line {doubled[line]}'
        else:
            assert isinstance(found, Record)


# ---- whole inputs that cannot be used


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("docs.jsonl", b"", "is empty"),
        ("docs.jsonl", b"\n \r\n\n", "holds no records"),
        ("docs.jsonl", codecs.BOM_UTF8, "holds no records"),
        ("docs.jsonl", '{"key":"a","text":"A"}'.encode("utf-16"), "UTF-16, as its byte order mark says"),
        ("docs.jsonl", codecs.BOM_UTF16_BE + '{"key":1}'.encode("utf-16-be"), "UTF-16, as its byte order mark says"),
        ("docs.jsonl", '{"key":"a","text":"A"}'.encode("utf-32"), "UTF-32, as its byte order mark says"),
        ("docs.jsonl", '{"key":"a","text":"A"}'.encode("utf-16-le"), "UTF-16, little-endian, without"),
        ("docs.jsonl", b"\x1f\x8b\x08\x00rest", "compressed with gzip"),
        ("docs.csv", b"PK\x03\x04rest", "a ZIP archive or an Excel workbook"),
        ("docs.csv", "key,text\na,A\n".encode("utf-16"), "UTF-16, as its byte order mark says"),
        ("docs.csv", b"", "is empty"),
        ("docs.csv", b"\n\n", 'has no column "key" (it has no column at all)'),
        ("docs.csv", b"key,text\r\n", "has a header but no records below it"),
        ("docs.csv", b"a,b\n1,2\n", 'has no column "key" (it has "a", "b"); name the columns in the first line'),
        ("docs.csv", b"key,body\n1,2\n", "say with --text-field which it is"),
        ("docs.csv", b"key,text,text\n1,2,3\n", 'more than one column named "text"'),
        ("docs.csv", b'key,"text\n1,2\n', "line 1: a quoted field begun here is not closed"),
        ("docs.csv", b"key,text\ra,A\r", "line 1: a bare carriage return stands in an unquoted field"),
        ("docs.csv", b"key,t\xe9xt\na,A\n", "line 1: it is not UTF-8"),
        ("docs.json", b"[]", "`jq -c '.[]' docs.json > records.jsonl`"),
        ("docs.xlsx", b"PK", "save the sheet as CSV UTF-8"),
        ("docs.pdf", b"%PDF", "the input must be a .jsonl (or .ndjson) file, a .csv (or .tsv) file, or a folder"),
        ("docs", b"x", "(none)"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_at_once(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(InputError) as raised:
        read_records(path)
    assert words in str(raised.value)
    assert str(path) in str(raised.value)


def test_what_is_not_there_or_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name, words in [
        ("no.jsonl", "no file or folder"),
        ("a\0b.jsonl", r"a\\u0000b.jsonl"),
        ("pipe.jsonl", "regular"),
    ]:
        with pytest.raises(InputError, match=words):
            read_records(tmp_path / name)


def test_a_file_that_may_not_be_read_is_refused(docs: Path) -> None:
    write(docs, '{"key":"a","text":"A"}\n').chmod(0)
    if os.access(docs, os.R_OK):
        pytest.skip("root may read everything")
    with pytest.raises(InputError, match="permissions"):
        read_records(docs)


# ---- reports and size


def test_the_report_shows_the_first_twenty_and_the_count() -> None:
    problems = [Problem(f"docs.jsonl, line {n}", "it is bad", "mend it", b"") for n in range(1, 26)]
    lines = problems_report(problems, 1234).splitlines()
    assert lines[0] == "1,234 records cannot be used:"
    assert lines[1] == "  - docs.jsonl, line 1: it is bad; mend it."
    assert lines[20] == "  - docs.jsonl, line 20: it is bad; mend it."
    assert lines[21:] == ["  … and 1,214 more"]
    assert problems_report(problems[:1], 1).splitlines() == ["1 record cannot be used:", lines[1]]


GROWTH = """
import resource, sys
from pathlib import Path
from webapp.records.reading import read_records
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = peak()
count = sum(1 for _ in read_records(Path(sys.argv[1])))
unit = 1 if sys.platform == "darwin" else 1024
print(count, (peak() - start) * unit)
"""


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_memory_stays_flat_over_two_hundred_thousand_records(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"many{ending}"
    text = "lorem ipsum " * 40
    with path.open("w") as stream:
        stream.write("key,text\n" if ending == ".csv" else "")
        line = "doc-%d,%s\n" if ending == ".csv" else '{"key":"doc-%d","text":"%s"}\n'
        stream.writelines(line % (n, text) for n in range(200_000))
    assert path.stat().st_size > 90_000_000
    done = subprocess.run([sys.executable, "-c", GROWTH, path], capture_output=True, text=True, check=True, timeout=120)
    count, growth = map(int, done.stdout.split())
    assert count == 200_000
    assert growth < 25_000_000
