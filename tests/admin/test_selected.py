"""Acting on everything that fits filters: asked first with counts and likely cost, sent once, its progress shown."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from urllib.parse import urlencode

import pytest
from support.desk import DeskDriver, documents
from support.sandbox import SandboxProcess
from support.visitor import Visitor

from webapp.admin.looking import Wanted
from webapp.admin.selected import meant_by
from webapp.batches import selecting
from webapp.batches.naming import new_token

TAGS = re.compile(r"<[^>]+>")


def words(page: str) -> str:
    """What a page says, without its markup."""
    return " ".join(unescape(TAGS.sub(" ", page)).split())


def links(page: str, path: str) -> list[str]:
    """The addresses on a page that lead to a path."""
    return [unescape(one) for one in re.findall(rf'href="({re.escape(path)}\?[^"]+)"', page)]


@pytest.fixture
def run_id(desk: DeskDriver, sandbox: SandboxProcess) -> int:
    """A run with failures of a fault of theirs and of the API's, which no rule sends again."""
    desk.change(max_attempts=1)
    sandbox.configure(invalid_share=0.3, overloaded_share=0.3)
    found = desk.run(documents(40))
    sandbox.configure(invalid_share=0, overloaded_share=0)
    return found


def of_class(desk: DeskDriver, kind: str) -> int:
    return int(desk.scalar("SELECT count(*) FROM items WHERE failure_class = :kind", kind=kind))


def test_a_cause_has_its_buttons_and_is_sent_again_alone(operator: Visitor, desk: DeskDriver, run_id: int) -> None:
    retry, fix = of_class(desk, "retry"), of_class(desk, "fix")
    for path in (f"/runs/{run_id}/", "/batches/1/"):
        page = operator.get(path)
        (link,) = [one for one in links(page, "/requests/resubmit") if "class=retry" in one]
        assert [one for one in links(page, "/requests/rebuild") if "class=fix" in one], "what wants a change first"
    page = words(operator.get(link))
    assert f"Resubmit failures of classify #{run_id}?" in page and "cause “overloaded_error" in page
    assert f"{retry} failures" in page and "fix" not in page
    assert re.search(r"Likely cost (about |under )\$[\d.]+ \(from \d+ answers of this run\)", page)
    assert "no spend" not in page
    desk.execute("UPDATE accounts SET sandbox = true")
    assert "list prices of made-up answers, and no spend" in words(operator.get(link))

    page = words(operator.post(link, **{"class": "retry", "token": new_token()}))
    assert f"{retry} failures of run {run_id} go out again as new attempts." in page
    assert f"Resubmission of {retry} failures" in page and "They wait for a worker" in page
    desk.work_until_over(run_id)
    page = words(operator.get("/resubmissions/1/"))
    assert f"{retry} succeeded" in page and "They wait" not in page
    bars = operator.open("/live?resubmission=1&click=1").json["bars"]
    assert f"{retry} of {retry} new attempts settled" in bars["resubmission-1"] and "click-1" in bars
    assert of_class(desk, "retry") == 0 and of_class(desk, "fix") == fix
    assert "/resubmissions/1/" in operator.get(f"/runs/{run_id}/") and "#1" in operator.get("/resubmissions/")
    assert "operator@desk.example" in operator.get("/resubmissions/1/")


def test_what_fails_by_its_own_fault_is_never_ticked_by_itself(operator: Visitor, run_id: int) -> None:
    for path in (f"/requests/resubmit?run={run_id}&class=fix", f"/requests/resubmit?run={run_id}"):
        page = operator.get(path)
        assert re.search(r'value="fix"[^>]*>', page) and not re.search(r'value="fix"[^>]* checked', page)
    assert re.search(r'value="retry"[^>]* checked', page)


def test_a_filtered_list_is_sent_again_over_several_runs(
    operator: Visitor, desk: DeskDriver, sandbox: SandboxProcess, run_id: int
) -> None:
    sandbox.configure(invalid_share=1)
    desk.run(documents(3))
    sandbox.configure(invalid_share=0)
    fix = of_class(desk, "fix")
    (link,) = links(operator.get("/requests/?class=fix"), "/requests/resubmit")
    page = words(operator.get(link))
    assert "Resubmit failures of 2 runs?" in page and f"{fix} failures" in page and "#2 3" in page
    token = new_token()
    for _ in range(2):  # a double click
        page = words(operator.post(link, **{"class": "fix", "token": token}))
        assert f"{fix} failures of 2 runs go out again" in page and f"Resubmission of {fix} failures" in page
    for one in (1, 2):
        desk.work_until_over(one)
    assert desk.scalar("SELECT max(attempts) FROM items") == 2 and of_class(desk, "fix") == 0
    assert f"{fix} of {fix} new attempts settled" in operator.get("/resubmissions/1/")


def test_one_request_is_sent_again_from_its_page(operator: Visitor, desk: DeskDriver, run_id: int) -> None:
    one = desk.scalar("SELECT min(id) FROM requests WHERE failure_class = 'fix'")
    (link,) = links(operator.get(f"/requests/{one}/"), "/requests/resubmit")
    operator.post(link, **{"class": "fix"})
    desk.work_until_over(run_id)
    assert desk.scalar("SELECT sum(attempts) FROM items") == 41
    page = operator.get(link)
    assert "a later attempt has taken its place" in page and '<button class="button" type="submit">' not in page
    assert "/requests/resubmit" not in operator.get(f"/requests/{one}/")
    assert "no failure of these classes" in operator.post(link, **{"class": "fix"})


def test_a_cancelled_run_is_told_to_be_taken_up_again(operator: Visitor, desk: DeskDriver) -> None:
    run_id = desk.start(documents(3))
    desk.perform("plan", run_id)
    operator.post(f"/runs/{run_id}/cancel")
    desk.work_until_over(run_id)
    page = words(operator.get("/requests/resubmit?class=stopped"))
    assert f"Run #{run_id} is cancelled; this takes it up again." in page
    assert "unknown: nothing of this kind has been answered yet" in page


def test_a_batch_is_built_anew_as_a_run_of_its_own(operator: Visitor, desk: DeskDriver, run_id: int) -> None:
    fix = of_class(desk, "fix")
    path = "/requests/rebuild?batch=1&class=fix"
    page = operator.get(path)
    assert f"{fix} subjects" in words(page) and "batch 1, class fix" in words(page)
    token = re.search(r'name="token" value="([^"]+)"', page)
    assert token
    fields = dict(re.findall(r'name="(set-[^"]+)" value="([^"]*)"', page)) | {"token": token[1]}
    page = operator.post(path, **fields | {"class": "fix"})
    assert f"Run {run_id + 1} builds {fix} subjects of run {run_id} anew." in page
    desk.work_until_over(run_id + 1)
    assert desk.summary(run_id + 1).succeeded == fix
    desk.run(documents(1))
    assert "Nothing was done" not in operator.get("/requests/rebuild?run=1")
    desk.execute("UPDATE items SET failure_class = 'fix', state = 'errored' WHERE run_id > 1")
    response = operator.open("/requests/rebuild?class=fix")
    assert response.status_code == 303 and "narrow the list" in operator.get(response.headers["Location"])


def test_answers_that_fit_are_processed_again(operator: Visitor, desk: DeskDriver, run_id: int) -> None:
    answers = desk.scalar("SELECT count(*) FROM outputs")
    (one, key) = desk.rows(
        "SELECT o.request_id, s.key FROM outputs o JOIN requests r ON r.id = o.request_id "
        "JOIN items i ON i.id = r.item_id JOIN subjects s ON s.id = i.subject_id LIMIT 1"
    )[0]
    desk.execute("UPDATE outputs SET task_version = 'old'")
    version = desk.desk.registry.task("classify").version
    page = operator.get(f"/requests/reprocess?run={run_id}&q={key}")
    assert "1 answer : all" in words(page) and f'name="version-classify" value="{version}"' in page
    fields = {"which": "all", "version-classify": version}
    page = operator.post(f"/requests/reprocess?run={run_id}&q={key}", **fields)
    assert f"1 answer of run {run_id} is processed again." in page
    desk.work_until_over(run_id)
    assert desk.rows("SELECT request_id FROM outputs WHERE task_version <> 'old'") == [(one,)]

    assert f"{answers} answers of run {run_id} are processed again" in operator.post(
        "/requests/reprocess?batch=1", **fields
    )
    desk.work_until_over(run_id)
    desk.perform("process", 1)
    assert desk.scalar("SELECT count(*) FROM outputs WHERE task_version = 'old'") == 0
    assert "narrow it first" in operator.post("/requests/reprocess?task=classify", **fields)
    assert "there is no such answer" in operator.post(
        "/requests/reprocess?class=output", **fields | {"which": "invalid"}
    )


def test_a_filter_that_makes_no_sense_does_nothing(operator: Visitor, desk: DeskDriver, run_id: int) -> None:
    events = desk.scalar("SELECT count(*) FROM events")
    for query in ("run=x", "state=odd", "class=odd", "request=-1", "cause=" + "x" * 300, "q=a%00b"):
        for verb in ("resubmit", "reprocess", "rebuild"):
            page = operator.get(f"/requests/{verb}?{query}", 400)
        assert operator.send(f"/requests/resubmit?{query}", **{"class": "fix"}).status_code == 400
        assert operator.open(f"/requests/export.jsonl?{query}").status_code == 400
    assert "cannot be" in page
    assert "nothing was sent again" in operator.post("/requests/resubmit?run=1")
    operator.get("/resubmissions/99/", 404)
    assert desk.scalar("SELECT count(*) FROM events") == events


def test_a_viewer_sees_no_such_action_and_can_post_none(viewer: Visitor, desk: DeskDriver, run_id: int) -> None:
    for path in (f"/runs/{run_id}/", "/batches/1/", "/requests/?class=fix", "/requests/1/", "/resubmissions/"):
        page = viewer.get(path)
        assert "/resubmit" not in page and "/reprocess" not in page and "/rebuild" not in page, path
    for verb in ("resubmit", "reprocess", "rebuild"):
        viewer.get(f"/requests/{verb}?run={run_id}", 403)
        assert viewer.send(f"/requests/{verb}?run={run_id}", **{"class": "fix"}).status_code == 403
    assert desk.scalar("SELECT count(*) FROM resubmissions") == 0


def test_every_filter_of_the_list_is_one_of_a_selection() -> None:
    """One that were not would be left out, and more be sent than is shown."""
    values = dict.fromkeys(Wanted.__dataclass_fields__)
    for name in values:
        meant = meant_by(Wanted(**values | {name: 7}))  # type: ignore[arg-type]
        assert getattr(meant, name) == 7
    assert set(Wanted.__dataclass_fields__) <= set(selecting.Meant.__dataclass_fields__)


def test_a_hostile_cause_stays_text_and_is_found_to_the_letter(
    operator: Visitor, desk: DeskDriver, run_id: int, tmp_path: Path
) -> None:
    cause = " <script>alert('x')</script>\n\t&“quoted”\u202e "
    desk.execute("UPDATE results SET error_message = :cause WHERE error_message IS NOT NULL", cause=cause)
    desk.execute("UPDATE items SET error = :cause WHERE failure_class = 'fix'", cause=cause)
    found = [one for one in links(operator.get(f"/runs/{run_id}/"), "/requests/resubmit") if "class=fix" in one]
    page = operator.get(found[0])
    assert "<script>alert" not in page and f"{of_class(desk, 'fix')} failures" in words(page)
    asked = operator.get("/requests/resubmit?" + urlencode({"run": run_id, "cause": cause}))
    assert not re.search(r"\b0 failures", asked)  # but perhaps 10


def test_all_runs_or_batches_that_fit_are_paused_resumed_and_cancelled(
    operator: Visitor, viewer: Visitor, desk: DeskDriver, sandbox: SandboxProcess
) -> None:
    over = desk.run(documents(1))
    sandbox.configure(delay=3600)
    first, second = desk.start(documents(2)), desk.start(documents(3))
    for _ in range(4):
        desk.perform_due()
    page = operator.get("/runs/all/pause")
    assert "Pause 2 runs?" in page and "1 run that fits too is left out" in words(page)
    ids = re.findall(r'name="id" value="(\d+)"', page)
    assert sorted(map(int, ids)) == [first, second]
    assert "2 runs are paused" in operator.post("/runs/all/pause", id=ids)
    page = operator.post("/runs/all/pause", id=[*ids, "x", str(over)])
    assert "0 runs are paused" in page and "is finished already" in page
    assert "1 run is resumed." in operator.post("/runs/all/resume?state=paused", id=ids[:1])
    assert "Cancel 2 batches?" in operator.get("/batches/all/cancel?state=in_progress")
    assert "Cancel 1 batch?" in operator.get(f"/batches/all/cancel?run={first}")
    batches = re.findall(r'name="id" value="(\d+)"', operator.get("/batches/all/cancel"))
    assert "2 batches are being cancelled" in operator.post("/batches/all/cancel", id=batches)
    assert desk.scalar("SELECT count(*) FROM batches WHERE cancel_wanted_at IS NOT NULL") == 2
    assert "2 runs are being cancelled" in operator.post("/runs/all/cancel", id=ids)
    operator.get("/runs/all/paint", 404)
    for query in ("owner=ann", "state=odd"):  # what is no filter here might be one of the list some day
        operator.get(f"/runs/all/cancel?{query}", 400)
    assert "/runs/all/cancel" in operator.get("/runs/") and "/batches/all/cancel" in operator.get("/batches/")
    viewer.get("/runs/all/cancel", 403)
    assert "/all/" not in viewer.get("/runs/") + viewer.get("/batches/")
    assert viewer.send("/runs/all/cancel", id=ids).status_code == 403
