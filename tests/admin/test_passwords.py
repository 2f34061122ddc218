"""Passwords are hashed as dearly as the product says, whatever the other tests ask for."""

from __future__ import annotations

import re

import pytest
from flask import Flask
from flask_security.utils import hash_password, verify_password
from support.desk import make_settings
from support.people import PASSWORD

from webapp import create_app
from webapp.admin import people
from webapp.local import Services


@pytest.fixture
def earnest(database_url: str, services: Services, monkeypatch: pytest.MonkeyPatch) -> Flask:
    """The application as it is outside of tests."""
    monkeypatch.delitem(people.CONFIG, "SECURITY_PASSWORD_HASH_PASSLIB_OPTIONS")
    return create_app(make_settings(database_url, services, sandbox_url=None))


def test_a_password_costs_64_mib_and_three_passes(earnest: Flask) -> None:
    with earnest.app_context():
        hashed = hash_password(PASSWORD)
        assert re.match(r"\$argon2id\$v=19\$m=65536,t=3,p=4\$", hashed), hashed
        assert verify_password(PASSWORD, hashed) and not verify_password(PASSWORD + "!", hashed)
