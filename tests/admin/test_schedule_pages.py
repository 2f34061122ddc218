"""Schedules at the dashboard: made from a run, looked at, changed, paused, deleted, and shown when one was stopped."""

from __future__ import annotations

import re
from html import unescape

import pytest
from support.desk import DeskDriver, documents
from support.forms import fields
from support.visitor import Visitor

from webapp.admin.timing import in_words


def words(page: str) -> str:
    """A page's text, on one line."""
    return re.sub(r" ([,.:)?])", r"\1", " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split()))


@pytest.fixture
def run_id(desk: DeskDriver) -> int:
    return desk.run(documents(4))


def make(operator: Visitor, run_id: int, **given: str) -> str:
    """Make a schedule of a run; the page that it leads to."""
    path = f"/schedules/new?repeat={run_id}"
    return operator.post(path, **fields(operator.get(path)) | given)


def test_a_run_that_went_well_is_scheduled_and_the_schedule_tells_of_its_runs(
    operator: Visitor, desk: DeskDriver, run_id: int
) -> None:
    assert "Nothing repeats by itself yet" in operator.get("/schedules/")
    assert f"/schedules/new?repeat={run_id}" in unescape(operator.get(f"/runs/{run_id}/"))
    path = f"/schedules/new?repeat={run_id}"
    page = operator.get(path)
    form = fields(page)
    assert (form["over"], form["every"], form["zone"], form["set-labels"]) == ("stale", "day", "UTC", "alpha,beta")
    form |= {"name": "Every <night>", "every": "weekdays", "at": "02:30", "zone": "Europe/Berlin", "over": "all"}
    response = operator.send(path, **form | {"do": "look"})
    assert re.search(r"The next three times: \w+ 20\d\d-\d\d-\d\d 02:30, .* in Europe/Berlin\.", words(response.text))
    assert fields(response.text) == form and not desk.rows("SELECT 1 FROM schedules"), "nothing is saved by looking"

    page = operator.post(path, **form)
    assert "Schedule 1 is on." in page and "Every &lt;night&gt;" in page
    assert "on weekdays at 02:30, Europe/Berlin" in words(page) and "It has made none yet." in words(page)
    assert operator.send(path, **form).headers["Location"] == "/schedules/1/", "the second click of a double click"
    assert desk.scalar("SELECT count(*) FROM schedules") == 1
    desk.execute("UPDATE schedules SET next_at = now()")
    desk.hurry()
    desk.perform("repeat", 1)
    page = operator.get("/schedules/1/")
    assert "Run 2 was made over 4 subjects." in words(page) and "/runs/2/" in page
    assert "Every &lt;night&gt;</a>" in operator.get("/runs/2/")
    assert "on weekdays at 02:30, Europe/Berlin · classify over docs" in words(operator.get("/schedules/"))
    seen = operator.open("/live?run=2&stamp_schedule_id=1").json
    assert seen and seen["stamp"] == desk.scalar("SELECT max(id) FROM events WHERE schedule_id = 1")


def test_what_is_wrong_is_said_all_at_once_and_nothing_typed_is_lost(
    operator: Visitor, desk: DeskDriver, run_id: int
) -> None:
    path = f"/schedules/new?repeat={run_id}"
    form = fields(operator.get(path)) | {"name": "", "at": "25:00", "set-labels": "one", "zone": "Mars/Olympus"}
    response = operator.send(path, **form)
    told = words(response.text)
    assert response.status_code == 200
    for sentence in ("Give it a name.", "A time of day is written as 02:30.", "at least two labels", "Not a valid"):
        assert sentence in told, sentence
    assert fields(response.text)["at"] == "25:00" and fields(response.text)["set-labels"] == "one"
    form = fields(operator.get(path)) | {"every": "cron", "cron": "0 0 30 2 *"}
    response = operator.send(path, **form)
    assert response.status_code == 200 and "“0 0 30 2 *” never comes true." in words(response.text)
    assert operator.send(path, **form | {"cron": "0 0 1 * *", "token": "x"}).status_code == 400
    assert desk.scalar("SELECT count(*) FROM schedules") == 0


@pytest.mark.parametrize(
    ("given", "cron", "told"),
    [
        ({"every": "hour", "at": "02:05"}, "5 * * * *", "every hour, 5 minutes past"),
        ({"every": "day", "at": "02:05"}, "5 2 * * *", "every day at 02:05"),
        ({"every": "week", "at": "12:00", "on": "0"}, "0 12 * * 0", "every Sunday at 12:00"),
        ({"every": "cron", "cron": " 0  0 1 * * "}, "0 0 1 * *", "by 0 0 1 * *"),
    ],
)
def test_plain_choices_become_times_and_are_shown_again(
    operator: Visitor, desk: DeskDriver, run_id: int, given: dict[str, str], cron: str, told: str
) -> None:
    assert told in words(make(operator, run_id, **given))
    assert desk.scalar("SELECT cron FROM schedules") == cron and in_words(cron) == told
    form = fields(operator.get("/schedules/1/edit"))
    assert form["every"] == given["every"] and form["on"] == given.get("on", "1")
    if "at" in given and given["every"] != "hour":
        assert form["at"] == given["at"]
    operator.post("/schedules/1/edit", **form)
    assert desk.scalar("SELECT cron FROM schedules") == cron, "saved as it was shown"


def test_a_schedule_is_changed_paused_resumed_and_deleted(operator: Visitor, desk: DeskDriver, run_id: int) -> None:
    make(operator, run_id, name="Nightly")
    form = fields(operator.get("/schedules/1/edit"))
    page = operator.post("/schedules/1/edit", **form | {"name": "Weekly", "every": "week", "set-labels": "x,y"})
    assert "Schedule 1 is changed." in page and "Weekly" in page and "every Monday at 02:00" in words(page)
    response = operator.send("/schedules/1/edit", **form | {"set-labels": ""})
    assert response.status_code == 200 and "Is required" in response.text
    assert "Schedule 1 is paused" in operator.post("/schedules/1/pause")
    assert "not while it is paused" in words(operator.get("/schedules/1/"))
    assert "is paused already" in operator.post("/schedules/1/pause")
    assert "goes on at its next time" in operator.post("/schedules/1/resume")
    page = operator.get("/schedules/1/")
    assert [word for word in ("made", "changed", "paused", "resumed") if f"Schedule {word}." in page] == [
        "made",
        "changed",
        "paused",
        "resumed",
    ]
    assert "Delete Weekly?" in words(operator.get("/schedules/1/delete"))
    assert desk.scalar("SELECT count(*) FROM schedules") == 1
    assert "Schedule 1 is deleted." in operator.post("/schedules/1/delete")
    assert operator.open("/schedules/1/").status_code == 404


def test_a_schedule_that_was_stopped_needs_a_person(operator: Visitor, desk: DeskDriver, run_id: int) -> None:
    make(operator, run_id, name="Nightly")
    desk.execute("""UPDATE schedules SET next_at = now(), settings = '{"labels": ["<one>"]}'""")
    desk.hurry()
    desk.perform("repeat", 1)
    home = operator.get("/")
    assert '<a href="/schedules/1/">Schedule 1</a>' in home and "at least two labels" in home
    page = operator.get("/schedules/1/")
    assert "It was stopped: Task 'classify' cannot run" in words(page) and "stopped" in operator.get("/schedules/")
    desk.desk.registry = type(desk.desk.registry)()
    assert "is not installed" in operator.get("/schedules/1/edit", 404)


def test_what_does_not_exist_is_not_found(operator: Visitor, desk: DeskDriver) -> None:
    for path in ("/schedules/9/", "/schedules/9/edit", "/schedules/9/delete", "/schedules/x/", "/schedules/0/"):
        assert operator.open(path).status_code == 404, path
    response = operator.send("/schedules/9/pause", back="/schedules/")
    assert response.status_code == 404 and "There is no schedule 9." in response.text


def test_a_viewer_sees_schedules_and_changes_none(viewer: Visitor, operator: Visitor, run_id: int) -> None:
    make(operator, run_id, name="Nightly")
    for path in ("/schedules/", "/schedules/1/"):
        page = viewer.get(path)
        assert "Nightly" in page
        assert re.findall(r'<form[^>]*method="post"[^>]*action="([^"]*)"', page) == ["/logout"]
        assert "/edit" not in page and "/delete" not in page
    for path in ("/schedules/1/edit", "/schedules/1/delete", f"/schedules/new?repeat={run_id}"):
        viewer.get(path, 403)
    assert viewer.send("/schedules/1/pause").status_code == 403
