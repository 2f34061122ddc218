"""People who sign in, through the same form as everybody."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask
from support.people import make_person
from support.visitor import Visitor


@pytest.fixture
def visitor(app: Flask) -> Visitor:
    """Somebody who is not signed in."""
    return Visitor(app)


@pytest.fixture
def person(app: Flask) -> Callable[[str | None], Visitor]:
    """Makes somebody with a role, signed in."""

    def make(role: str | None) -> Visitor:
        email = make_person(role)
        return Visitor(app).sign_in(email)

    return make


@pytest.fixture
def viewer(person: Callable[[str | None], Visitor]) -> Visitor:
    return person("viewer")


@pytest.fixture
def operator(person: Callable[[str | None], Visitor]) -> Visitor:
    return person("operator")


@pytest.fixture
def admin(person: Callable[[str | None], Visitor]) -> Visitor:
    return person("admin")
