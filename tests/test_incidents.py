"""What went wrong for others: each incident has a test that names its number in its docstring."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
INCIDENTS = {
    "I1": "batch ids only in memory: every restart orphaned paid batches and submitted them again",
    "I2": "a retry of the task submitted a second billable batch",
    "I3": "`ended` was saved, the results failed, and the batch was stranded for ever",
    "I4": "an expired batch was treated as failed: its paid results were never read",
    "I5": "a duplicate custom_id: one row got the answer of another",
    "I6": "ended, but some rows missing, noticed days later",
    "I7": "three polls billed three times",
    "I8": "a cancelled batch's partial spend was never recorded",
    "I9": "the cost was always $0",
    "I10": "cache tokens at full price; the discount not applied to the cache",
    "I11": "no credit: thousands failed as invalid requests",
    "I12": "a model that cannot be batched: all discarded in silence",
    "I13": "one deterministic error retried for weeks",
    "I14": "413 on a big batch; one image over the limit",
    "I15": "a custom_id over 64 characters: the whole batch refused",
    "I16": "the system prompt silently dropped on the way",
    "I17": "an explicit temperature is refused by newer models and versions of the API",
    "I18": "one job on two workers, or enqueued twice",
    "I19": "Ctrl-C left a batch billing unseen",
    "I20": "a saved state that could not be loaded, behind tests that mocked the store",
    "I21": "counters wrong after resubmission",
    "I22": "a batch id that belongs to another key: 404 taken for lost",
}


def docstrings() -> Iterator[tuple[str, str]]:
    """Each test that has a docstring, and it."""
    for path in sorted(HERE.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield f"{path.relative_to(HERE)}::{node.name}", ast.get_docstring(node) or ""


@pytest.mark.parametrize("number", INCIDENTS)
def test_each_incident_is_named_by_a_test_that_shows_it_cannot_happen_here(number: str) -> None:
    named = [test for test, words in docstrings() if re.match(rf"(I\d+, )*{number}[:,]", words)]
    assert named, INCIDENTS[number]


def test_no_test_names_an_incident_that_nobody_knows() -> None:
    for test, words in docstrings():
        beginning = re.match(r"((I\d+)(, I\d+)*):", words)
        assert not beginning or set(beginning[1].split(", ")) <= {f"I{number}" for number in range(1, 26)}, test
