"""One's own account: another password, and what one did and had done to one."""

from __future__ import annotations

import pytest
from flask import Flask
from support.desk import DeskDriver, documents
from support.people import PASSWORD
from support.visitor import Visitor

NEW = "correct horse battery"
VIEWER = "viewer@desk.example"


def change(visitor: Visitor, old: str = PASSWORD, new: str = NEW, again: str | None = None) -> str:
    """Fill in the form; the page that one sees then."""
    again = new if again is None else again
    response = visitor.send("/account/password", password=old, new_password=new, new_password_confirm=again)
    return visitor.get(response.headers["Location"]) if response.status_code == 302 else response.text


def test_whoever_is_signed_in_changes_their_own_password(app: Flask, viewer: Visitor, desk: DeskDriver) -> None:
    other = Visitor(app).sign_in(VIEWER)
    assert "Change your password" in viewer.get("/account/password")

    assert "Your password is changed" in change(viewer)
    viewer.get("/")
    assert other.open("/").status_code == 302, "all other sessions are over"
    assert Visitor(app).send("/login", email=VIEWER, password=PASSWORD).status_code == 200
    Visitor(app).sign_in(VIEWER, NEW).get("/")
    rows = desk.rows("SELECT actor, target, address, reason FROM events WHERE kind = 'person'")
    reason = "Changed their own password; all other sessions are over."
    assert [tuple(row) for row in rows] == [(VIEWER, VIEWER, "127.0.0.1", reason)]
    assert NEW not in str(desk.rows("SELECT row_to_json(e)::text FROM events e"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"old": "wrong"}, "That is not your password."),
        ({"old": ""}, "Enter your password."),
        ({"new": "short"}, "12 to 128 characters"),
        ({"new": "x" * 129}, "12 to 128 characters"),
        ({"new": "abababababab"}, "different characters"),
        ({"new": "my viewer@desk.example"}, "sign-in name"),
        ({"new": "", "again": ""}, "Enter your password."),
        ({"again": "another long one"}, "not the same both times"),
        ({"new": "nul\0nul\0nul\0nul\0"}, "different characters"),
    ],
)
def test_a_password_that_will_not_do_is_refused(
    app: Flask, viewer: Visitor, fields: dict[str, str], words: str
) -> None:
    page = change(viewer, **fields)

    assert words in page
    assert not fields.get("new") or fields["new"] not in page
    Visitor(app).sign_in(VIEWER).get("/")


def test_the_password_that_one_has_is_no_new_one(app: Flask, viewer: Visitor) -> None:
    change(viewer)
    assert "The new password is the old one." in change(viewer, old=NEW, new=NEW)


def test_an_open_session_is_no_way_to_guess_the_password(app: Flask, viewer: Visitor) -> None:
    for _ in range(10):
        assert "That is not your password." in change(viewer, old="wrong")

    for old in ("wrong", PASSWORD):
        assert "Too many wrong tries." in change(viewer, old=old)


def test_a_weak_new_password_is_no_wrong_try(app: Flask, viewer: Visitor) -> None:
    for _ in range(12):
        assert "12 to 128" in change(viewer, new="short")
    assert "Your password is changed" in change(viewer)


def test_a_change_needs_the_token(app: Flask, viewer: Visitor) -> None:
    data = {"password": PASSWORD, "new_password": NEW, "new_password_confirm": NEW}
    assert viewer.open("/account/password", "POST", data=data).status_code == 400
    Visitor(app).sign_in(VIEWER)


def test_the_name_at_the_top_leads_to_what_one_did(app: Flask, operator: Visitor, desk: DeskDriver) -> None:
    Visitor(app).send("/login", email="operator@desk.example", password="wrong")
    run_id = desk.start(documents(2))
    operator.post(f"/runs/{run_id}/cancel")

    assert 'class="who" href="/account/"' in operator.get("/")
    page = operator.get("/account/")
    assert "You are an operator." in page
    assert "Signed in." in page and "The password was wrong." in page and "from 127.0.0.1" in page
    assert "Cancel asked for." in page and f'href="/runs/{run_id}/"' in page


def test_nobody_sees_in_their_account_what_others_did(app: Flask, viewer: Visitor, operator: Visitor) -> None:
    assert "operator@desk.example" not in viewer.get("/account/")
