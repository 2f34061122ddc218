"""Prompts: files of their own, told apart by their version, with no gap left; and the declarations of several lines."""

from __future__ import annotations

import hashlib
import re
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.shipped import REGISTRY, ROOT, TASKS

from webapp.errors import PluginError
from webapp.hooks import Prompt, named_lines

FOLDER = ROOT / "plugins" / "prompts"
# A prompt that was changed asks something else: it gets a new name and its task a new version, and stands here anew.
SUMS: dict[str, str] = {
    "alt_text-2.md": "9b1f844289efbb49",
    "classify-2.md": "31a3caf10f23cd07",
    "evaluate-1.md": "b93eba34c74e8928",
    "extract-1.md": "b20ff532f27cfd3a",
    "summarise-2.md": "938a35a7b3dad861",
}


def made(folder: Path, text: str) -> Prompt:
    (folder / "prompts").mkdir()
    (folder / "prompts" / "mine-1.md").write_text(text)
    return Prompt(str(folder / "mine.py"), "mine-1")


def test_a_prompt_that_is_changed_is_a_new_version() -> None:
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in FOLDER.iterdir()} == SUMS


@pytest.mark.parametrize("name", TASKS)
def test_each_task_has_the_prompt_of_its_version(name: str) -> None:
    assert (FOLDER / f"{name}-{REGISTRY.task(name).version}.md").exists()


@pytest.mark.parametrize("name", TASKS)
def test_no_part_of_a_prompt_is_left_unused(name: str) -> None:
    prompt = Prompt(str(ROOT / "plugins" / f"{name}.py"), f"{name}-{REGISTRY.task(name).version}")
    code = (ROOT / "plugins" / f"{name}.py").read_text()
    for part in prompt.parts:
        # By its name, or by the first word of it and a choice.
        assert re.search(rf"""part\(f?["']({part}["']|{part.split()[0]} \{{)""", code) or f'"{part}"' in code, part


def test_a_part_is_given_with_its_gaps_filled_and_braces_in_values_kept(tmp_path: Path) -> None:
    prompt = made(tmp_path, "For readers.\n--- system ---\n\nYou read {{what}}.\n\n--- question ---\nWhat?\n")
    assert prompt.parts == ("system", "question")
    assert prompt.part("system", what="{{what}} {x}") == "You read {{what}} {x}."
    assert prompt.part("question") == "What?"


def test_what_is_wrong_with_a_prompt_is_told(tmp_path: Path) -> None:
    prompt = made(tmp_path, "--- system ---\n{{what}} {{who}}")
    with pytest.raises(PluginError, match="gaps that nothing fills: who"):
        prompt.part("system", what="x")
    with pytest.raises(PluginError, match="no part 'sytem'; it has system"):
        prompt.part("sytem")
    with pytest.raises(PluginError, match="cannot be read"):
        Prompt(str(tmp_path / "mine.py"), "mine-2")
    for text, words in (("no parts", "has no part"), ("--- a ---\n--- a ---\n", "the part 'a' twice")):
        prompt.file.write_text(text)
        with pytest.raises(PluginError, match=words):
            Prompt(str(tmp_path / "mine.py"), "mine-1")


def test_lines_are_read_with_their_numbers_and_empty_ones_passed_over() -> None:
    assert named_lines("a: one\r\n\n  b :two: three ") == [(1, "a", "one"), (3, "b", "two: three")]
    assert named_lines("a: b: c", names=["a", "a: b"]) == [(1, "a: b", "c")]
    assert named_lines("") == []


@pytest.mark.parametrize(
    ("text", "names", "words"),
    [
        ("a: one\nnothing", (), "line 2, 'nothing', has no colon"),
        ("a b: one", (), "line 1: 'a b' is no name"),
        ("a:", (), "line 1 says nothing of 'a'"),
        ("a: 1\nb: 2\na: 3", (), "'a' is there twice, on lines 1 and 3"),
        ("a: \x00", (), "line 1 holds a control character"),
        ("spma: x", ("spam", "ham"), "line 1: there is no 'spma'. Did you mean 'spam'\\? There are: spam, ham"),
    ],
)
def test_a_line_that_declares_nothing_is_named(text: str, names: tuple[str, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        named_lines(text, names)


NAMES = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=64).filter(
    lambda s: not s[0].isdigit()
)
WORDS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=30).filter(lambda s: s[0] != ":")


@given(st.dictionaries(NAMES, WORDS))
def test_what_is_declared_is_read(lines: dict[str, str]) -> None:
    text = "\n".join(f"{name}: {words}" for name, words in lines.items())
    assert {line.name: line.rest for line in named_lines(text)} == lines


@given(st.dictionaries(WORDS, WORDS, min_size=1))
def test_names_that_are_known_may_hold_anything(lines: dict[str, str]) -> None:
    # A line belongs to the longest name that it begins with; here each name stands before its own colon alone.
    lines = {name.replace(":", ""): words for name, words in lines.items() if name.replace(":", "")}
    text = "\n".join(f"{name}: {words}" for name, words in lines.items())
    assert {line.name: line.rest for line in named_lines(text, list(lines))} == lines


@given(st.text(), st.lists(st.text(min_size=1)))
def test_any_text_is_read_or_refused_with_a_sentence(text: str, names: list[str]) -> None:
    try:
        named_lines(text, names)
    except ValueError as error:
        assert re.match(r"line \d+|'", str(error))
