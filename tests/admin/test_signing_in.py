"""Signing in and out, and the first admin. None of it needs an API, so the application here has none."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from flask import Flask
from pydantic import SecretStr
from sqlalchemy import select
from support.desk import make_settings
from support.people import PASSWORD
from support.visitor import Visitor

from webapp import create_app
from webapp.admin.people import User, ensure_roles_and_admin
from webapp.db import db
from webapp.local import Services


@pytest.fixture
def app(database_url: str, services: Services) -> Iterator[Flask]:
    app = create_app(make_settings(database_url, services, sandbox_url=None))
    with app.app_context():
        yield app
        db.session.remove()
        db.engine.dispose()


def test_signing_in_leads_back_to_the_page_that_was_asked_for(visitor: Visitor, viewer: Visitor) -> None:
    response = visitor.open("/requests/?state=errored&run=3")
    page = visitor.get(response.headers["Location"])

    assert "/requests/?state=errored&amp;run=3" in page


def test_signing_in_never_leads_elsewhere(app: Flask, viewer: Visitor) -> None:
    for target in ("https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)"):
        response = Visitor(app).send("/login", email="viewer@desk.example", password=PASSWORD, next=target)

        assert response.status_code in (200, 302)
        leads_to = urlsplit(response.headers.get("Location", "/"))
        assert (leads_to.scheme, leads_to.netloc) == ("", ""), target


WRONG = [
    ("viewer@desk.example", "wrong"),
    ("stranger@example.com", PASSWORD),
    ("nul\0@example.com", PASSWORD),
    ("viewer@desk.example", "nul\0"),
    ("'; DROP TABLE users; --", "x"),
]


def test_a_wrong_name_and_a_wrong_password_get_the_same_words(visitor: Visitor, viewer: Visitor) -> None:
    for email, password in WRONG:
        response = visitor.send("/login", email=email, password=password)

        assert response.status_code == 200
        assert response.text.count("The name or the password is wrong.") == 1, email
    assert visitor.open("/").status_code == 302


def test_the_case_of_a_sign_in_name_does_not_matter(visitor: Visitor, viewer: Visitor) -> None:
    visitor.sign_in(" Viewer@Desk.EXAMPLE ")

    visitor.get("/")


def test_whoever_is_switched_off_is_out_at_once(app: Flask, viewer: Visitor) -> None:
    with app.app_context():
        user = db.session.scalars(select(User).where(User.email == "viewer@desk.example")).unique().one()
        user.active = False
        db.session.commit()

    assert viewer.open("/").status_code == 302


def test_signing_out_ends_the_session(viewer: Visitor) -> None:
    assert viewer.send("/logout").status_code == 302

    assert viewer.open("/").status_code == 302


def test_the_session_cookie_is_kept_from_scripts_and_other_sites(visitor: Visitor) -> None:
    cookie = visitor.open("/login").headers["Set-Cookie"]

    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie


def test_the_first_admin_gets_a_password_that_is_told_once(app: Flask, visitor: Visitor) -> None:
    settings = app.extensions["batchdesk"].settings
    password = ensure_roles_and_admin(settings)

    assert password and len(password) >= 16
    assert ensure_roles_and_admin(settings) is None
    assert password not in (db.session.scalar(select(User.password)) or "")
    visitor.sign_in("admin@example.com", password).get("/")


def test_a_password_that_was_given_is_not_told(app: Flask, visitor: Visitor) -> None:
    settings = app.extensions["batchdesk"].settings.model_copy(
        update={"admin_password": SecretStr("a given one"), "admin_email": "Boss@Example.com"}
    )

    assert ensure_roles_and_admin(settings) is None
    visitor.sign_in("boss@example.com", "a given one").get("/")


def test_without_a_key_every_page_says_that_it_is_a_sandbox(visitor: Visitor, viewer: Visitor) -> None:
    words = "no API key is set; nothing here costs money"

    assert words in visitor.get("/login")
    for path in ("/", "/runs/", "/batches/", "/requests/"):
        assert words in viewer.get(path)
    assert words in viewer.get("/nowhere", 404)


def test_empty_pages_say_what_to_do_next(viewer: Visitor) -> None:
    for path in ("/", "/runs/", "/batches/", "/requests/"):
        assert "batchdesk run classify docs.jsonl --set labels=" in viewer.get(path), path


def test_pages_forbid_what_they_do_not_need(visitor: Visitor, viewer: Visitor) -> None:
    for response in (visitor.open("/login"), viewer.open("/"), viewer.open("/nowhere")):
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "same-origin"
        assert response.headers["Cache-Control"] == "no-store"
    first, second = (viewer.open("/").headers["Content-Security-Policy"] for _ in range(2))
    assert first != second, "a nonce was used twice"
