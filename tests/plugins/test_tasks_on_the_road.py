"""The shipped tasks with all they can be asked for, through the sandbox, which takes what they build."""

from __future__ import annotations

from typing import Any

import pytest
from support.desk import DeskDriver, documents

from webapp.records.jsontext import dumps
from webapp.records.record import Record

RUBRIC = "faithful: weight 2, says only what the record says\nshort: no word too many"
FIELDS = (
    "word: text\nparts: list\nhow_many: integer\nshare: number\nday: date\nsound: boolean\nwhich: one of alpha|beta"
)


def outputs(desk: DeskDriver) -> list[Any]:
    return [value for (value,) in desk.rows("SELECT value FROM outputs WHERE state = 'ok' ORDER BY request_id")]


@pytest.mark.parametrize(
    ("task", "settings", "names"),
    [
        (
            "classify",
            {"labels": "alpha,beta", "most_labels": "2", "other": "suggest", "confidence": "true"},
            {"labels", "suggestion", "confidence"},
        ),
        ("summarise", {"bullets": "2", "style": "brief", "audience": "all"}, {"bullets"}),
        (
            "extract",
            {"fields": FIELDS, "evidence": "flag"},
            {"word", "parts", "how_many", "share", "day", "sound", "which", "evidence", "unsupported"},
        ),
        ("extract", {"fields": FIELDS, "evidence": "none", "per_document": "many"}, {"records"}),
    ],
)
def test_each_answer_becomes_an_output(desk: DeskDriver, task: str, settings: dict[str, str], names: set[str]) -> None:
    status = desk.status(desk.run(documents(4), task=task, **settings))
    assert (status.counts.succeeded, status.state) == (4, "finished")
    assert [set(found) for found in outputs(desk)] == [names] * 4


def test_outputs_of_a_run_are_scored_by_a_rubric(desk: DeskDriver) -> None:
    about = {"run": 1, "task": "classify", "model": "claude-haiku-5-5"}
    made = [
        {"record": {"text": f"alpha {n}", "label": "alpha"}, "output": {"label": "alpha"}, **about} for n in range(4)
    ]
    made[3]["record"] = {"text": "no reference"}
    records = (Record(n, f"o{n}", "output", dumps(data), None) for n, data in enumerate(made))
    run_id = desk.start_records(records, "evaluate", rubric=RUBRIC, reference_field="label", scale="3")
    counts = desk.work_until_over(run_id).counts
    found = outputs(desk)
    assert (counts.succeeded, len(found)) == (3, 3)
    for one in found:
        scores = one["scores"]
        assert one["total"] == round(100 * (2 * (scores["faithful"] - 1) + scores["short"] - 1) / 6, 1)
        assert (one["run"], one["model"]) == (1, "claude-haiku-5-5") and set(one["reasons"]) == set(scores)
    assert "has no 'label'" in desk.scalar("SELECT error FROM items WHERE error IS NOT NULL")
