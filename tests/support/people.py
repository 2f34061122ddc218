"""People who may sign in, for tests of the dashboard. Needs an application context."""

from __future__ import annotations

from functools import cache

from flask import current_app
from flask_security.utils import hash_password
from sqlalchemy import select

from webapp.admin.people import Role, ensure_roles_and_admin, store
from webapp.db import db

PASSWORD = "open sesame"
# The least that argon2 can be asked for, but for the memory: that of a weak hash of another program is less.
QUICK_PASSWORDS = {"argon2__rounds": 1, "argon2__memory_cost": 128, "argon2__parallelism": 1}


def make_person(role: str | None, name: str | None = None) -> str:
    """Make somebody with that role, or with none; the sign-in name."""
    email = f"{name or role or 'nobody'}@desk.example"
    with current_app.app_context():  # its session ends here
        ensure_roles_and_admin(current_app.extensions["batchdesk"].settings)
        roles = list(db.session.scalars(select(Role).where(Role.name == role)))
        store.create_user(email=email, password=_hashed(), active=True, roles=roles)
        store.commit()
    return email


@cache
def _hashed() -> str:
    """Argon2 is slow on purpose: once is enough."""
    return str(hash_password(PASSWORD))
