"""Estimates and caps at the dashboard: told before a run starts, beside what it costs, and set by whoever may."""

from __future__ import annotations

import re
from decimal import Decimal
from html import unescape

from support.desk import DeskDriver, documents
from support.forms import fields
from support.sandbox import Sandbox
from support.visitor import Visitor

from webapp import wishes
from webapp.money.caps import Scope

NEW = "/runs/new?dataset=1&task=classify"
FORM = {"set-labels": "alpha, beta"}


def words(page: str) -> str:
    """What a page says, on one line."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


def preview(operator: Visitor, **more: str) -> str:
    form = fields(operator.get(NEW)) | FORM | more | {"do": "preview"}
    return operator.send(NEW, **form).text


def test_the_preview_tells_a_range_with_its_reasons(operator: Visitor, desk: DeskDriver, sandbox: Sandbox) -> None:
    desk.run(documents(12), task="summarise")
    told = words(preview(operator))
    assert "Estimate $0.0" in told or "Estimate under $0.01" in told
    for reason in ("The API counted 6 of the 12 requests", "a guess from the form", "At the very most", "That is"):
        assert reason in told
    sandbox.configure(count_faults="403*")
    told = words(preview(operator))
    assert "No tokens were counted (Your API key does not have permission" in told
    assert "unpriced" in words(preview(operator, **{"set-model": "claude-fable-5-2"}))
    assert desk.scalar("SELECT count(*) FROM run_estimates") == 1, "a preview stores nothing"


def test_a_cap_is_given_at_the_start_and_warned_of(operator: Visitor, desk: DeskDriver) -> None:
    desk.run(documents(12), task="summarise")
    page = preview(operator, cap="0.00001")
    assert "more than its cap of $0.00001: it would stop on the way" in words(page)
    assert fields(page)["cap"] == "0.00001"
    wishes.ask_cap(Scope.TASK, "classify", Decimal("0.00002"), actor="ann")
    assert "the monthly cap of task classify, $0.00002, has" in words(preview(operator))
    again = fields(page) | {"do": "start"}
    assert operator.send(NEW, **again).status_code == 303
    assert desk.scalar("SELECT limit_usd FROM caps WHERE scope = 'run' AND target = '2'") == Decimal("0.00001")
    assert desk.work_until_over(2).state == "paused"
    told = words(operator.get("/runs/2/"))
    assert "The monthly cap of task classify is $0.00002: $0.00 billed, nothing under way" in told
    assert "Estimated" in told and 'href="/caps/">Caps</a>' in operator.get("/runs/2/")
    wishes.ask_cap(Scope.TASK, "classify", Decimal(1), actor="ann")
    wishes.ask_resume(2, actor="ann")
    assert desk.work_until_over(2).state == "paused"
    assert "The cap of run 2 is $0.00001" in words(operator.get("/"))
    assert 'href="/runs/2/cap">Raise the cap</a>' in operator.get("/runs/2/")


def test_what_is_no_amount_is_told_and_nothing_starts(operator: Visitor, desk: DeskDriver) -> None:
    desk.run(documents(2), task="summarise")
    for do in ("preview", "start"):
        page = operator.send(NEW, **fields(operator.get(NEW)) | FORM | {"cap": "much", "do": do}).text
        assert "A cap is an amount in US dollars" in words(page)
        assert fields(page)["cap"] == "much"
    assert desk.scalar("SELECT count(*) FROM runs") == 1


def test_a_runs_cap_is_raised_and_the_run_goes_on_with_one_button(operator: Visitor, desk: DeskDriver) -> None:
    run_id = desk.start(documents(4))
    wishes.ask_cap(Scope.RUN, str(run_id), Decimal(0), actor="ann")
    desk.work_until_over(run_id)
    form = fields(operator.get(f"/runs/{run_id}/cap"))
    assert (form["limit"], form["resume"], form["refuse"]) == ("0", "yes", "yes")
    page = operator.post(f"/runs/{run_id}/cap", **form | {"limit": "2"})
    assert f"The cap of run {run_id} is $2.00 now." in words(page)
    assert desk.work_until_over(run_id).state == "finished"
    assert "left" in words(operator.get(f"/runs/{run_id}/"))
    assert "amount in US dollars" in words(operator.send(f"/runs/{run_id}/cap", limit="x").text)
    page = operator.post(f"/runs/{run_id}/cap", limit="")
    assert "has no cap of its own now" in words(page)
    assert desk.scalar("SELECT count(*) FROM caps") == 0
    operator.get("/runs/99/cap", 404)


def test_admins_set_change_and_remove_monthly_caps(admin: Visitor, operator: Visitor, desk: DeskDriver) -> None:
    desk.run(documents(3))
    assert "Nothing is limited by the month" in words(operator.get("/caps/"))
    page = admin.post("/caps/new", scope="task", target="classify", limit="25", refuse="yes")
    assert "the monthly cap of task classify is $25.00 now" in words(page)
    told = words(operator.get("/caps/"))
    assert "Task classify" in told and "nothing under way" in told and "refused" in told
    cap_id = desk.scalar("SELECT id FROM caps")
    assert fields(admin.get(f"/caps/{cap_id}/edit"))["limit"] == "25"
    admin.post(f"/caps/{cap_id}/edit", limit="30.5")
    assert tuple(desk.rows("SELECT limit_usd, refuse_unpriced FROM caps")[0]) == (Decimal("30.5"), False)
    assert "Take the monthly cap of task classify away?" in words(admin.get(f"/caps/{cap_id}/remove"))
    admin.post(f"/caps/{cap_id}/remove")
    admin.get(f"/caps/{cap_id}/edit", 404)
    actors = desk.rows("SELECT DISTINCT actor FROM events WHERE target_kind = 'cap'")
    assert [actor for (actor,) in actors] == ["admin@desk.example"]


def test_a_cap_of_nothing_is_said_on_the_form_and_nothing_typed_is_lost(admin: Visitor, desk: DeskDriver) -> None:
    for given, told in (
        ({"scope": "account", "target": "7", "limit": "5"}, "There is no account 7."),
        ({"scope": "task", "target": "", "limit": "5"}, "Name the task"),
        ({"scope": "owner", "target": "ann", "limit": "5 dollars"}, "amount in US dollars"),
        ({"scope": "run", "target": "1", "limit": "5"}, "Choose what the cap is of."),
    ):
        page = admin.send("/caps/new", **given).text
        assert told in words(page)
        assert fields(page)["limit"] == given["limit"] and fields(page)["target"] == given["target"]
    assert desk.scalar("SELECT count(*) FROM caps") == 0
