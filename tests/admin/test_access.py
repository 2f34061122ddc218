"""Everything is denied by default: each route of the application is walked by those who may not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from flask import Flask
from support.desk import DeskDriver, documents
from support.visitor import Visitor
from werkzeug.routing import Rule

from webapp.admin.access import OPEN

VALUES = {"row": "1", "any": "result", "string": "0" * 64, "path": "desk.css", "default": "1"}


def paths(app: Flask, method: str, *, open_ones: bool = False) -> Iterator[str]:
    """An address of every route that takes a method."""
    for rule in app.url_map.iter_rules():
        if method in (rule.methods or ()) and (open_ones or rule.endpoint not in OPEN):
            yield address(rule)


def address(rule: Rule) -> str:
    return re.sub(r"<(?:(\w+)[^:>]*:)?\w+>", lambda found: VALUES[found[1] or "default"], rule.rule)


def test_nobody_sees_anything_without_signing_in(app: Flask, visitor: Visitor) -> None:
    walked = list(paths(app, "GET"))

    assert {"/", "/runs/", "/batches/1/", "/requests/1/result.json", "/live"} <= set(walked)
    for path in walked:
        response = visitor.open(path)
        assert (response.status_code, response.headers["Location"].split("?")[0]) == (302, "/login"), path


def test_nobody_changes_anything_without_signing_in(app: Flask, visitor: Visitor) -> None:
    walked = list(paths(app, "POST"))

    assert {"/runs/1/cancel", "/runs/1/resubmit", "/batches/1/poll", "/logout"} <= set(walked)
    for path in walked:
        response = visitor.send(path)
        assert response.status_code == 401, path


def test_unknown_addresses_are_no_way_in(visitor: Visitor) -> None:
    assert visitor.open("/no/such/page").status_code == 302


def test_only_what_is_listed_is_open(app: Flask, visitor: Visitor) -> None:
    endpoints = {rule.endpoint for rule in app.url_map.iter_rules()}

    assert endpoints >= OPEN
    bootstrap = "/static/admin/bootstrap/bootstrap4/css/bootstrap.min.css"
    for path in ("/login", "/healthz", "/readyz", "/static/desk.css", "/static/desk.js", bootstrap):
        with visitor.open(path) as response:
            assert response.status_code == 200, path


def test_a_viewer_sees_every_page_and_no_action(viewer: Visitor, desk: DeskDriver) -> None:
    desk.run(documents(3))

    for path in ("/", "/runs/", "/runs/1/", "/batches/", "/batches/1/", "/requests/", "/requests/1/"):
        page = viewer.get(path)
        forms = re.findall(r'<form[^>]*method="post"[^>]*action="([^"]*)"', page)
        assert forms == ["/logout"], path
        assert "/cancel" not in page and "/resubmit" not in page, path


def test_a_viewer_can_post_nothing_but_the_way_out(app: Flask, viewer: Visitor) -> None:
    for path in paths(app, "POST"):
        if path == "/logout":
            continue
        response = viewer.send(path)
        assert response.status_code == 403, path


def test_a_viewer_is_not_asked_for_confirmation(viewer: Visitor, desk: DeskDriver) -> None:
    desk.run(documents(2))

    for path in ("/runs/1/cancel", "/runs/1/resume", "/runs/1/resubmit", "/batches/1/cancel"):
        assert "an operator or an admin" in viewer.get(path, 403)


def test_somebody_without_a_role_sees_nothing(person: Callable[[str | None], Visitor]) -> None:
    nobody = person(None)

    assert "no role yet" in nobody.get("/", 403)


def test_a_post_without_the_token_is_refused(app: Flask, operator: Visitor, desk: DeskDriver) -> None:
    run_id = desk.start(documents(3))

    for path in paths(app, "POST", open_ones=True):
        response = operator.open(path, "POST")
        assert response.status_code == 400, path
        assert "fresh page" in response.text
    assert desk.scalar("SELECT cancel_wanted_at FROM runs WHERE id = :id", id=run_id) is None


def test_a_get_changes_nothing(app: Flask, operator: Visitor, desk: DeskDriver) -> None:
    run_id = desk.start(documents(3))
    desk.perform_due()
    events = desk.scalar("SELECT count(*) FROM events")

    for path in paths(app, "GET"):
        operator.open(path).close()
    assert desk.scalar("SELECT count(*) FROM events") == events
    assert desk.status(run_id).state == "running"
    assert operator.open("/").status_code == 200, "a GET has signed out"
