"""The rows of an export: each subject once, in input order, however long the answers are."""

from __future__ import annotations

import tracemalloc

import pytest
from support.desk import DeskDriver, documents

from webapp import db
from webapp.batches import queries

MEGABYTE = 1_000_000


def lengthen(desk: DeskDriver, size: int) -> None:
    """Make every answer a string of so many bytes, with the id of its request in it."""
    desk.execute("UPDATE outputs SET value = to_json(rpad(request_id::text || ' ', :size, 'x'))", size=size - 2)


def test_answers_are_read_so_many_bytes_at_a_time(desk: DeskDriver) -> None:
    run_id = desk.run(documents(60))
    lengthen(desk, MEGABYTE)
    tracemalloc.start()
    try:
        with db.transaction(by_key=True) as tx:
            lengths = [len(row.output_json or "") for row in queries.outputs(tx, run_id)]
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert lengths == [MEGABYTE] * 60
    assert most < 40 * MEGABYTE, "60 MB of answers are never held together"


@pytest.mark.parametrize("most", [1, 250, 10**9])
def test_parts_and_pages_change_nothing_of_the_rows(
    desk: DeskDriver, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    run_id = desk.run(documents(10))
    desk.execute("DELETE FROM outputs WHERE request_id IN (SELECT id FROM requests ORDER BY id LIMIT 1)")
    lengthen(desk, 100)
    before = desk.outputs(run_id)
    monkeypatch.setattr(queries, "EXPORT_BYTES", most)
    monkeypatch.setattr(queries, "EXPORT_PAGE", 3)
    assert desk.outputs(run_id) == before
    assert [row.key for row in before] == [f"doc-{n}" for n in range(10)]
    ids = {custom_id: str(one) for custom_id, one in desk.rows("SELECT custom_id, id FROM requests")}
    for row in before[1:]:
        assert row.custom_id is not None
        assert row.output_json is not None and row.output_json.startswith(f'"{ids[row.custom_id]} ')
    assert before[0].output_json is None


def test_the_outputs_of_no_run_are_none(desk: DeskDriver) -> None:
    assert desk.outputs(77) == []
