"""The cache in the dashboard: one request that goes ahead is asked for in the form, and pages say what was read."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.desk import DeskDriver, documents
from support.forms import fields
from support.sandbox import Sandbox
from support.visitor import Visitor

from bench.caching import TASK
from webapp.batches.naming import new_token


def started(desk: DeskDriver, operator: Visitor, prime: str) -> int:
    """A run over ten documents, by the form."""
    form = "/runs/new?dataset=1&task=long"
    filled = fields(operator.get(form)) | {"set-model": "claude-sonnet-5-5", "set-name": prime, "prime": prime}
    preview = operator.send(form, **filled | {"do": "preview"}).text
    assert f'name="prime" value="{prime}"' in preview
    assert operator.send(form, **filled | {"do": "start", "token": new_token()}).status_code == 303
    run_id: int = desk.scalar("SELECT max(id) FROM runs")
    desk.work_until_over(run_id, hurry=True)
    return run_id


@pytest.fixture(autouse=True)
def _long(desk: DeskDriver, sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.configure(cache_hit_rate=1, cache_cold_requests=5)
    desk.use_plugin(tmp_path / "own", TASK)
    desk.run(documents(10), "long", model="claude-haiku-5-5", name="before")


def test_a_request_goes_ahead_where_the_form_asks_for_it_and_the_pages_say_what_the_others_read(
    desk: DeskDriver, operator: Visitor
) -> None:
    plain, primed = started(desk, operator, "off"), started(desk, operator, "on")
    page = operator.get(f"/runs/{plain}/")
    assert "50.0 % of the tokens that were cached" in page and "5 answers wrote it themselves in batches" in page
    assert "asked for that all is sent at once" in page
    page = operator.get(f"/runs/{primed}/")
    assert "90.0 % of the tokens that were cached" in page and "answers wrote it" not in page
    ahead, rest = desk.rows("SELECT id, role, total FROM batches WHERE run_id = :id ORDER BY ordinal", id=primed)
    assert (ahead.role, ahead.total, rest.total) == ("prime", 1, 9)
    assert "100.0 % of the tokens that were cached" in operator.get(f"/batches/{rest.id}/")
    assert "<dd>0.0 % of the tokens that were cached" in operator.get(f"/batches/{ahead.id}/")
