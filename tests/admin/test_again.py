"""What people do again: process answers, rebuild subjects; and how what waits, what was and what it cost is shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from html import unescape
from pathlib import Path

import pytest
from support.audit import audit
from support.desk import DeskDriver, documents
from support.forms import fields
from support.sandbox import Sandbox
from support.visitor import Visitor

from webapp import db
from webapp.batches.states import FailureClass
from webapp.money import ledger
from webapp.runs import verbs

PICKY = """
from typing import Any
from pydantic import Field
from webapp.hooks import InvalidOutput, ModelSettings, Task, hookimpl

class PickySettings(ModelSettings):
    words: list[str] = Field(default=["a"], description="Words that are liked.")
    strict: bool = False
    depth: dict[str, Any] = {}

class Picky(Task[PickySettings]):
    name = "picky"
    version = "VERSION"
    Settings = PickySettings

    def shared_params(self, settings):
        return settings.base_params()

    def request_params(self, subject, settings):
        return {"messages": [{"role": "user", "content": subject.text}]}

    def process(self, subject, message, settings):
        if VERSION == 1 and subject.text.startswith("Text 1 "):
            raise InvalidOutput("<b>not</b> by version VERSION")
        return "<i>by</i> VERSION"

@hookimpl
def register_tasks():
    return [Picky()]
"""


def install(desk: DeskDriver, tmp_path: Path, version: int) -> None:
    desk.use_plugin(tmp_path / "own", PICKY.replace("VERSION", str(version)))


def words(page: str) -> str:
    """A page's text, on one line."""
    return re.sub(r" ([,.:)])", r"\1", " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split()))


@pytest.fixture
def picky(desk: DeskDriver, tmp_path: Path) -> Iterator[int]:
    """A run of three of which version 1 of its task finds one answer no use; version 2 is installed."""
    install(desk, tmp_path, 1)
    run_id = desk.run(documents(3), task="picky", model="claude-haiku-5-5", words='spam,"news, local"')
    install(desk, tmp_path, 2)
    yield run_id


def test_answers_that_are_no_use_are_processed_again_after_a_confirmation(
    operator: Visitor, desk: DeskDriver, sandbox: Sandbox, picky: int
) -> None:
    assert f"/runs/{picky}/reprocess" in operator.get(f"/runs/{picky}/")
    page = operator.get(f"/runs/{picky}/reprocess")
    told = words(page)
    assert "version 2, which is installed now (the run was started with 1)" in told
    assert "1 answer that is no use" in told and "3 answers: all" in told
    assert desk.scalar("SELECT count(*) FROM reprocessings") == 0

    page = operator.post(f"/runs/{picky}/reprocess", **fields(page) | {"which": "invalid"})
    assert f"1 answer of run {picky} is processed again, with version 2." in page
    desk.perform_due()
    assert desk.summary(picky).succeeded == 3
    assert desk.scalar("SELECT count(*) FROM former_outputs") == 1
    page = words(operator.get(f"/runs/{picky}/"))
    assert "1 answer was processed again, with version 2 of the task." in page
    assert "operator@desk.example" in page

    page = operator.post(f"/runs/{picky}/reprocess", which="all", version="2")
    assert f"3 answers of run {picky} are processed again" in page
    assert "there is no such answer" in operator.post(f"/runs/{picky}/reprocess", which="invalid", version="2")
    desk.perform_due()
    audit(desk, sandbox)


def test_one_request_is_processed_again_and_its_page_shows_what_was_before(
    operator: Visitor, desk: DeskDriver, picky: int
) -> None:
    for number in (1, 2):
        assert f"/requests/{number}/reprocess" in operator.get(f"/requests/{number}/")
        page = operator.get(f"/requests/{number}/reprocess")
        assert "the present output was made with 1" in words(page)
        page = operator.post(f"/requests/{number}/reprocess", **fields(page))
        assert f"The answer of request {number} is processed again, with version 2." in page
        desk.perform_due()

    page = operator.get("/requests/1/")
    assert 'Before just now succeeded by version 1, replaced just now "<i>by</i> 1" Download' in words(page)
    (link,) = re.findall(r'href="(/requests/1/output-\d+.json)"', page)
    assert operator.open(link).data == b'"<i>by</i> 1"'
    page = operator.get("/requests/2/")
    assert "invalid by version 1, replaced just now <b>not</b> by version 1" in words(page)
    assert "Processed just now, by version 2" in words(page)
    assert operator.open(link.replace("/1/", "/3/")).status_code == 404


def test_a_task_that_is_gone_can_do_nothing_again(operator: Visitor, desk: DeskDriver, picky: int) -> None:
    desk.desk.registry = type(desk.desk.registry)()
    for path in (f"/runs/{picky}/reprocess", f"/runs/{picky}/rebuild?all=1", "/requests/1/reprocess"):
        page = operator.get(path)
        assert "is not installed" in page and 'class="button" type="submit"' not in page, path


def test_failures_are_rebuilt_with_other_settings_as_a_run_that_is_linked_both_ways(
    operator: Visitor, desk: DeskDriver, sandbox: Sandbox, picky: int
) -> None:
    page = operator.get(f"/runs/{picky}/rebuild")
    assert "1 subject" in words(page) and "version 2 of the task" in words(page)
    form = fields(page)
    assert form["set-words"] == 'spam,"news, local"' and form["set-strict"] == "false"
    assert "set-depth" not in form, "what is no line of text stays as it is"
    form |= {"class": "output", "set-words": "other", "set-strict": "true"}

    page = operator.post(f"/runs/{picky}/rebuild", **form)
    child = desk.scalar("SELECT max(id) FROM runs")
    assert f"Run {child} builds 1 subject of run {picky} anew." in page
    assert f'subjects of <a href="/runs/{picky}/">' in page
    assert f'<a href="/runs/{child}/">run #{child}</a> (1 subject)' in operator.get(f"/runs/{picky}/")
    assert desk.scalar("SELECT settings->>'words' FROM runs WHERE id = :id", id=child) == '["other"]'
    assert desk.scalar("SELECT settings->>'strict' FROM runs WHERE id = :id", id=child) == "true"
    operator.post(f"/runs/{picky}/rebuild", **form)  # the second click of a double click
    assert desk.scalar("SELECT count(*) FROM runs") == 2
    desk.work_until_over(child)
    assert [row.key for row in desk.outputs(child)] == ["doc-1"]
    assert f"Run #{child}, made just now, rebuilds 1 subject of it already." in words(
        operator.get(f"/runs/{picky}/rebuild")
    )
    audit(desk, sandbox)


def test_all_of_a_run_is_rebuilt(operator: Visitor, desk: DeskDriver, picky: int) -> None:
    page = operator.get(f"/runs/{picky}/rebuild?all=1")
    assert "3 subjects, those that succeeded too, get a new request" in words(page)
    assert "Run 2 builds 3 subjects of run 1 anew." in operator.post(f"/runs/{picky}/rebuild", **fields(page))


def test_what_a_rebuild_lacks_is_said(operator: Visitor, desk: DeskDriver, picky: int) -> None:
    form = fields(operator.get(f"/runs/{picky}/rebuild"))
    assert form.pop("class") == "output", "the class that another request may help is ticked"
    assert "No class was ticked" in operator.post(f"/runs/{picky}/rebuild", **form)
    assert "no subject that failed so" in operator.post(f"/runs/{picky}/rebuild", **form | {"class": "fix"})
    bad = form | {"class": "output", "set-max_tokens": "none"}
    response = operator.send(f"/runs/{picky}/rebuild", **bad | {"set-words": "kept, as typed"})
    assert response.status_code == 200
    assert "Is 'none': Input should be a valid integer" in words(response.text)
    assert fields(response.text)["set-words"] == "kept, as typed"
    assert fields(response.text)["class"] == "output"
    assert operator.send(f"/runs/{picky}/rebuild", **form | {"class": "output", "token": "../x"}).status_code == 400
    assert operator.open("/runs/99/rebuild").status_code == 404
    assert operator.open("/runs/99/reprocess").status_code == 404
    assert operator.open("/requests/99/reprocess").status_code == 404
    assert desk.scalar("SELECT count(*) FROM runs") == 1


def test_a_viewer_is_offered_nothing_of_it(viewer: Visitor, desk: DeskDriver, picky: int) -> None:
    for path in (f"/runs/{picky}/", "/requests/1/"):
        page = viewer.get(path)
        assert "/reprocess" not in page and "/rebuild" not in page
    for path in (f"/runs/{picky}/reprocess", f"/runs/{picky}/rebuild", "/requests/1/reprocess"):
        viewer.get(path, 403)


def test_what_waits_for_its_next_attempt_looks_different_from_what_has_failed(
    operator: Visitor, desk: DeskDriver, sandbox: Sandbox
) -> None:
    """I25."""
    desk.change(retry_delay=3600)
    sandbox.configure(overloaded_share=0.3, invalid_share=0.3)
    run_id = desk.start(documents(60))
    desk.perform_until("done")
    for _ in range(3):
        desk.perform_due()
    counts = desk.status(run_id).counts
    again, failed = counts.retrying, counts.failed
    assert again and failed

    for path in ("/", "/runs/", f"/runs/{run_id}/"):
        told = words(operator.get(path))
        assert f"{again} waiting for their next attempt" in told and f"{failed} errored" in told, path
        assert f"settled: {60 - again - failed} succeeded, {failed} errored, {again} waiting" in operator.get(path), (
            path
        )
    bars = operator.open(f"/live?run={run_id}").json
    assert f"{60 - again} of 60 subjects settled" in bars["bars"][f"run-{run_id}"]
    page = words(operator.get(f"/runs/{run_id}/"))
    assert f"{again} subjects wait for their next attempt, and go out again by themselves in about 60 minutes" in page
    for path in (f"/runs/{run_id}/", "/batches/1/"):
        page = words(operator.get(path))
        assert re.search(rf"waiting for their next attempt Not failed yet: .*? {again} Show all", page), path
        assert re.search(rf"fix The request itself is at fault.*? {failed} Show all", page), path

    (waiting,) = desk.rows("SELECT min(id) FROM requests WHERE failure_class = 'retry'")[0]
    (final,) = desk.rows("SELECT min(id) FROM requests WHERE failure_class = 'fix'")[0]
    page = words(operator.get(f"/requests/{waiting}/"))
    assert "Not failed yet: it waits for its next attempt" in page
    assert "2 waiting Comes by itself when its delay is over." in page
    assert "Not failed yet" not in operator.get(f"/requests/{final}/")
    listed = operator.get(f"/requests/?run={run_id}&state=errored")
    assert listed.count("waits for its next attempt") == min(again, 50)

    desk.execute("UPDATE runs SET cancel_wanted_at = now()")
    for path in ("/", "/runs/", f"/runs/{run_id}/", f"/requests/{waiting}/", "/requests/?state=errored"):
        assert "next attempt" not in operator.get(path), path


def test_the_attempts_of_an_item_are_listed_with_what_each_cost(
    operator: Visitor, desk: DeskDriver, tmp_path: Path
) -> None:
    install(desk, tmp_path, 1)
    run_id = desk.run(documents(2), task="picky", model="claude-haiku-5-5")
    for _ in range(2):
        with db.transaction() as tx:
            verbs.resubmit_run(tx, run_id, [FailureClass.OUTPUT], actor="tester")
        desk.work_until_over(run_id)
    (item,) = desk.rows("SELECT id FROM items WHERE attempts = 3")[0]
    # The second answer came twice, from two batches of the API.
    desk.execute(
        "INSERT INTO ledger_lines (request_id, duplicate, api_batch_id, custom_id, account_id, run_id, priced_at, "
        "cost_usd, sync_cost_usd) SELECT r.id, true, 'msgbatch_other', r.custom_id, 1, :run, now(), 0.25, 0.5 "
        "FROM requests r WHERE r.item_id = :item AND r.attempt = 2",
        run=run_id,
        item=item,
    )
    with db.transaction() as tx:
        costs = ledger.attempt_totals(tx, item)
        whole = ledger.total(costs.values())
        others = ledger.total(ledger.attempt_totals(tx, 3 - item).values())
        assert whole.cost_usd is not None and others.cost_usd is not None
        assert whole.cost_usd + others.cost_usd == ledger.run_totals(tx, run_id).cost_usd
    assert [costs[n].lines for n in (1, 2, 3)] == [1, 2, 1]

    request = desk.scalar("SELECT id FROM requests WHERE item_id = :item AND attempt = 2", item=item)
    page = operator.get(f"/requests/{request}/")
    exact = re.findall(r'title="exactly \$([\d.]+)"', page)
    assert [Decimal(one) for one in exact] == [costs[1].cost_usd, costs[2].cost_usd, costs[3].cost_usd, whole.cost_usd]
    told = words(page)
    assert re.search(
        r"1 invalid output <b>not</b>.*? 2 \(this one\) invalid .*? 2 answers 3 invalid .*? 3 attempts", told
    )
    desk.execute("UPDATE ledger_lines SET cost_usd = NULL WHERE duplicate")
    assert operator.get(f"/requests/{request}/").count("unpriced") >= 2, "the attempt, and so the sum"
