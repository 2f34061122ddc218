"""One's own account: the way to another password, and what one did and had done to one last. Registered by `init_app`
of this room. Flask-Security changes the password; this draws its page in our frame.
"""

from __future__ import annotations

from typing import Any

from flask import Flask
from flask.typing import ResponseReturnValue
from flask_security import current_user
from sqlalchemy import Connection

from webapp.admin import eventlist
from webapp.admin.filters import Cursor
from webapp.admin.frame import Page, expose, reading
from webapp.admin.people import DESCRIPTIONS, SHORTEST
from webapp.admin.users import about

ACTS = 20
LOOKED_AT = 200  # events of a person, among which these are


class AccountPage(Page):
    """Who one is, here."""

    def is_visible(self) -> bool:
        return False  # the name in the masthead leads here

    @expose("/")
    def index(self) -> ResponseReturnValue:
        tx, name = reading(), str(current_user.email)
        return self.render(
            "desk/account.html",
            roles=sorted(role.name for role in current_user.roles),
            descriptions=DESCRIPTIONS,
            signed=about(tx, name),
            acts=_acts(tx, name),
        )


def init_app(app: Flask, page: AccountPage) -> None:
    """Let Flask-Security's page for another password stand in our frame."""
    app.extensions["security"].change_password_context_processor(lambda: {"admin_view": page, "shortest": SHORTEST})


def _acts(tx: Connection, name: str) -> list[Any]:
    """What a person did last, apart from signing in and out."""
    found = eventlist.find(tx, eventlist.Wanted(who=name), Cursor(None, None), LOOKED_AT).rows
    return [event for event in found if event.kind not in ("sign_in", "sign_out")][:ACTS]
