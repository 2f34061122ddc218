"""Everything is denied by default: each route of the application is walked by everybody, with every method."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from support.desk import DeskDriver, documents
from support.filling import changed, contents
from support.people import make_person
from support.visitor import Visitor
from werkzeug.routing import Rule

from webapp.admin.access import OPEN

# The least who may: everybody, whoever is signed in, and by role. Each holds those after it.
OPEN_TO_ALL, SIGNED_IN, VIEWER, OPERATOR, ADMIN = range(5)
WHO = {OPEN_TO_ALL: "anonymous", SIGNED_IN: None, VIEWER: "viewer", OPERATOR: "operator", ADMIN: "admin"}
NO = 9  # nobody: the route does not take that method

# Each route: who may look (GET, HEAD), who may change (POST). A route that is not here fails the test.
MAY = {
    "account.index": (VIEWER, NO),
    "admin_home": (VIEWER, NO),
    "batches.abandon": (OPERATOR, OPERATOR),
    "batches.adopt": (OPERATOR, OPERATOR),
    "batches.cancel": (OPERATOR, OPERATOR),
    "batches.details": (VIEWER, NO),
    "batches.disown": (OPERATOR, OPERATOR),
    "batches.index": (VIEWER, NO),
    "batches.many": (OPERATOR, OPERATOR),
    "batches.poll": (NO, OPERATOR),
    "batches.refetch": (OPERATOR, OPERATOR),
    "batches.resend": (OPERATOR, OPERATOR),
    "caps.edit": (ADMIN, ADMIN),
    "caps.index": (VIEWER, NO),
    "caps.new": (ADMIN, ADMIN),
    "caps.remove": (ADMIN, ADMIN),
    "charts.answers_svg": (VIEWER, NO),
    "charts.money_svg": (VIEWER, NO),
    "charts.spend_svg": (VIEWER, NO),
    "datasets.apply": (NO, OPERATOR),
    "datasets.data": (VIEWER, NO),
    "datasets.details": (VIEWER, NO),
    "datasets.discard": (OPERATOR, OPERATOR),
    "datasets.import_": (NO, OPERATOR),
    "datasets.index": (VIEWER, NO),
    "datasets.new": (OPERATOR, OPERATOR),
    "datasets.of_run": (NO, OPERATOR),
    "datasets.picture": (VIEWER, NO),
    "datasets.problems": (VIEWER, NO),
    "datasets.refresh": (OPERATOR, OPERATOR),
    "datasets.refresh_from_source": (NO, OPERATOR),
    "datasets.source": (OPERATOR, OPERATOR),
    "datasets.sources": (OPERATOR, NO),
    "datasets.subject": (VIEWER, NO),
    "datasets.subjects": (VIEWER, NO),
    "datasets.upload": (VIEWER, NO),
    "destinations.again": (NO, OPERATOR),
    "destinations.delete": (OPERATOR, OPERATOR),
    "destinations.details": (VIEWER, NO),
    "destinations.disable": (NO, OPERATOR),
    "destinations.edit": (OPERATOR, OPERATOR),
    "destinations.enable": (NO, OPERATOR),
    "destinations.index": (VIEWER, NO),
    "destinations.new": (OPERATOR, OPERATOR),
    "events.export": (ADMIN, NO),
    "events.index": (VIEWER, NO),
    "health.healthz": (OPEN_TO_ALL, NO),
    "health.readyz": (OPEN_TO_ALL, NO),
    "home.index": (VIEWER, NO),
    "home.static": (OPEN_TO_ALL, NO),
    "live.live": (VIEWER, NO),
    "money.add_price": (ADMIN, ADMIN),
    "money.export": (VIEWER, NO),
    "money.index": (VIEWER, NO),
    "money.prices": (VIEWER, NO),
    "money.remove_price": (ADMIN, ADMIN),
    "outputs.export": (VIEWER, NO),
    "outputs.index": (VIEWER, NO),
    "plugins.ask": (ADMIN, ADMIN),
    "plugins.confirm": (NO, ADMIN),
    "plugins.details": (VIEWER, NO),
    "plugins.drop": (NO, ADMIN),
    "plugins.enable": (NO, ADMIN),
    "plugins.index": (VIEWER, NO),
    "plugins.install": (ADMIN, ADMIN),
    "plugins.installation": (VIEWER, NO),
    "plugins.settings": (ADMIN, ADMIN),
    "requests.details": (VIEWER, NO),
    "requests.export": (VIEWER, NO),
    "requests.former": (VIEWER, NO),
    "requests.image": (VIEWER, NO),
    "requests.index": (VIEWER, NO),
    "requests.rebuild_selected": (OPERATOR, OPERATOR),
    "requests.reprocess": (OPERATOR, OPERATOR),
    "requests.reprocess_selected": (OPERATOR, OPERATOR),
    "requests.resubmit": (OPERATOR, OPERATOR),
    "requests.sent": (VIEWER, NO),
    "requests.stored": (VIEWER, NO),
    "resubmissions.details": (VIEWER, NO),
    "resubmissions.index": (VIEWER, NO),
    "runs.cap": (OPERATOR, OPERATOR),
    "runs.cancel": (OPERATOR, OPERATOR),
    "runs.details": (VIEWER, NO),
    "runs.export": (VIEWER, NO),
    "runs.index": (VIEWER, NO),
    "runs.many": (OPERATOR, OPERATOR),
    "runs.new": (OPERATOR, OPERATOR),
    "runs.pause": (OPERATOR, OPERATOR),
    "runs.rebuild": (OPERATOR, OPERATOR),
    "runs.reprocess": (OPERATOR, OPERATOR),
    "runs.resubmit": (OPERATOR, OPERATOR),
    "runs.resume": (OPERATOR, OPERATOR),
    "security.change_password": (VIEWER, VIEWER),
    "security.login": (OPEN_TO_ALL, OPEN_TO_ALL),
    "security.logout": (NO, SIGNED_IN),
    "static": (OPEN_TO_ALL, NO),
    "schedules.delete": (OPERATOR, OPERATOR),
    "schedules.details": (VIEWER, NO),
    "schedules.edit": (OPERATOR, OPERATOR),
    "schedules.index": (VIEWER, NO),
    "schedules.new": (OPERATOR, OPERATOR),
    "schedules.pause": (NO, OPERATOR),
    "schedules.resume": (NO, OPERATOR),
    "strays.index": (VIEWER, NO),
    "strays.look": (NO, OPERATOR),
    "users.activate": (NO, ADMIN),
    "users.add": (ADMIN, ADMIN),
    "users.ask": (ADMIN, ADMIN),
    "users.details": (ADMIN, NO),
    "users.index": (ADMIN, NO),
    "users.role": (ADMIN, ADMIN),
    "users.unlock": (NO, ADMIN),
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
# Nothing is at these ids, so that whoever may changes nothing; who may not is stopped before that is found out.
VALUES = {"row": "999", "string": "0" * 64, "path": "desk.css", "default": "1"}


def routes(app: Flask) -> list[Rule]:
    """Every route, the way out last."""
    return sorted(app.url_map.iter_rules(), key=lambda rule: (rule.endpoint == "security.logout", rule.rule))


def address(rule: Rule) -> str:
    """An address that a route takes."""

    def value(found: re.Match[str]) -> str:
        converter, options = found[1] or "default", found[2]
        return options.split(",")[0].strip() if converter == "any" else VALUES[converter]

    return re.sub(r"<(?:(\w+)(?:\(([^)]*)\))?:)?\w+>", value, rule.rule)


def paths(app: Flask, method: str, *, open_ones: bool = False) -> Iterator[str]:
    """An address of every route that takes a method."""
    for rule in routes(app):
        if method in (rule.methods or ()) and (open_ones or rule.endpoint not in OPEN):
            yield address(rule)


def visitors(app: Flask, level: int) -> tuple[Visitor, str]:
    """Somebody of that level, and the token of their forms."""
    visitor = Visitor(app)
    if level != OPEN_TO_ALL:
        visitor.sign_in(make_person(WHO[level]))
    return visitor, visitor.token()


def test_every_route_says_who_may(app: Flask) -> None:
    routed = {rule.endpoint: set(rule.methods or ()) & set(METHODS) for rule in routes(app)}

    assert routed.keys() == MAY.keys()
    for endpoint, (look, change) in MAY.items():
        allowed = ({"GET", "HEAD"} if look != NO else set()) | ({"POST"} if change != NO else set())
        assert routed[endpoint] == allowed, endpoint
    assert {endpoint for endpoint, (look, _) in MAY.items() if look == OPEN_TO_ALL} == OPEN


@pytest.mark.parametrize("level", WHO, ids=lambda level: WHO[level] or "no role")
def test_each_route_is_open_to_whom_it_says_and_to_nobody_else(app: Flask, level: int) -> None:
    visitor, token = visitors(app, level)
    wrong = []
    for rule in routes(app):
        for method in METHODS:
            look, change = MAY[rule.endpoint]
            least = look if method in ("GET", "HEAD") else change if method == "POST" else NO
            data = {"csrf_token": token} if method == "POST" else None
            with visitor.open(address(rule), method, data=data) as response:
                status, leads_to = response.status_code, response.headers.get("Location", "")
            stopped = status in (401, 403, 405) or (status == 302 and leads_to.startswith("/login"))
            if (level >= least) is stopped or status >= 500:
                wrong.append((method, rule.rule, status, leads_to))
    assert wrong == []


def test_nobody_sees_anything_without_signing_in(app: Flask, visitor: Visitor) -> None:
    walked = list(paths(app, "GET"))

    assert {"/", "/runs/", "/batches/999/", "/requests/999/subject.json", "/live", "/users/"} <= set(walked)
    for path in walked:
        response = visitor.open(path)
        assert (response.status_code, response.headers["Location"].split("?")[0]) == (302, "/login"), path


def test_nobody_changes_anything_without_signing_in(app: Flask, visitor: Visitor) -> None:
    walked = list(paths(app, "POST"))

    assert {"/runs/999/cancel", "/batches/999/poll", "/users/add", "/account/password", "/logout"} <= set(walked)
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

    for path in ("/", "/runs/", "/runs/1/", "/batches/", "/batches/1/", "/requests/", "/requests/1/", "/events/"):
        page = viewer.get(path)
        forms = re.findall(r'<form[^>]*method="post"[^>]*action="([^"]*)"', page)
        assert forms == ["/logout"], path
        assert "/cancel" not in page and "/resubmit" not in page, path


def test_a_viewer_is_not_asked_for_confirmation(viewer: Visitor, desk: DeskDriver) -> None:
    desk.run(documents(2))

    for path in ("/runs/1/cancel", "/runs/1/resume", "/runs/1/resubmit", "/batches/1/cancel"):
        assert "an operator or an admin" in viewer.get(path, 403)


def test_somebody_without_a_role_sees_nothing(person: Callable[[str | None], Visitor]) -> None:
    nobody = person(None)

    assert "no role yet" in nobody.get("/", 403)


def test_a_post_without_the_token_is_refused_and_changes_nothing(
    app: Flask, admin: Visitor, desk: DeskDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.start(documents(3))
    monkeypatch.setitem(VALUES, "row", "1")  # what is there
    before = contents()

    walked = list(paths(app, "POST", open_ones=True))
    assert "/runs/1/cancel" in walked and "/users/1/activate" in walked
    for path in walked:
        for fields in ({}, {"csrf_token": ""}, {"csrf_token": "IjEi.aaaa.bbbb"}):
            response = admin.open(path, "POST", data=fields | {"sure": "1", "name": "x", "role": "viewer"})
            assert response.status_code == 400, path
            assert "fresh page" in response.text
    assert changed(before, contents()) == []


def test_the_token_of_somebody_else_is_no_good(app: Flask, operator: Visitor, viewer: Visitor) -> None:
    response = operator.open("/runs/999/cancel", "POST", data={"csrf_token": viewer.token()})
    assert response.status_code == 400
