"""Pilots at the dashboard: asked for in the form, looked at on the run's page, and released there."""

from __future__ import annotations

import re

from support.desk import DeskDriver, documents
from support.forms import fields
from support.sandbox import Sandbox
from support.visitor import Visitor

from webapp.batches.naming import new_token


def test_the_form_takes_a_pilot_and_the_page_of_the_run_shows_it_and_releases_the_rest(
    desk: DeskDriver, sandbox: Sandbox, operator: Visitor
) -> None:
    dataset = desk.scalar("SELECT dataset_id FROM runs WHERE id = :id", id=desk.run(documents(9)))
    form = f"/runs/new?dataset={dataset}&task=classify"
    filled = fields(operator.get(form)) | {"set-labels": "alpha,beta"}
    assert (
        "a number of subjects from 1 to 10,000"
        in operator.send(form, **filled | {"do": "preview", "pilot": "all"}).text
    )
    preview = operator.send(form, **filled | {"do": "preview", "pilot": "3"}).text
    assert "the first 3 go ahead" in preview and 'name="pilot" value="3"' in preview
    assert operator.send(form, **filled | {"do": "start", "pilot": "3", "token": new_token()}).status_code == 303
    run_id = desk.scalar("SELECT max(id) FROM runs")
    assert "3 subjects go ahead. The run stops when they are through" not in operator.get(f"/runs/{run_id}/")
    desk.work_until_over(run_id, hurry=True)

    page = operator.get(f"/runs/{run_id}/")
    assert "3 subjects went ahead, and the other 6 wait for you" in page
    assert all(f">doc-{n}</a>" in page for n in range(3)) and ">doc-3</a>" not in page
    assert "by what these cost" in page and f'href="/runs/{run_id}/resume"' in page
    resuming = re.search(r'<input id="resume"[^>]*>', operator.get(f"/runs/{run_id}/cap"))
    assert resuming and "checked" not in resuming[0], "a cap that is set does not release the rest by itself"
    asked = operator.get(f"/runs/{run_id}/resume")
    assert "<b>1 batch of 6 requests</b>" in asked and "Send the rest</button>" in asked
    assert "then the rest was released" in operator.post(f"/runs/{run_id}/resume")
    assert desk.work_until_over(run_id, hurry=True).over
    assert desk.summary(run_id).succeeded == 9
