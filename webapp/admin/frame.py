"""The frame that every page stands in: Flask-Admin's menu and views, our templates.
Pages subclass `Page`; nothing here edits rows, so there is nothing to lock.

Flask-Admin's model views are left out on purpose: they bring routes that edit and delete, page numbers
that count every row, and answer 500 to ids and filters that do not parse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from flask import Flask, flash, redirect, request
from flask.typing import ResponseReturnValue
from flask_admin import Admin, BaseView
from flask_admin import expose as flask_admin_expose
from flask_admin.theme import Bootstrap4Theme
from sqlalchemy import Connection
from werkzeug.routing import BaseConverter

from webapp import jobs
from webapp.admin.headers import nonce
from webapp.db import db
from webapp.errors import BatchdeskError, NotFound

View = TypeVar("View", bound=Callable[..., Any])


def expose(path: str, *, methods: tuple[str, ...] = ("GET",)) -> Callable[[View], View]:
    """Flask-Admin's decorator for the pages of a view, with types."""
    exposed: Callable[[View], View] = flask_admin_expose(path, methods)
    return exposed


class RowId(BaseConverter):
    """The id of a row in an address; anything else, also what no bigint holds, is not found."""

    regex = r"[1-9]\d{0,17}"

    def to_python(self, value: str) -> int:
        return int(value)


class Page(BaseView):  # type: ignore[misc] # Flask-Admin ships no types
    """A view of ours within Flask-Admin's frame."""

    def _run_view(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        # Flask-Admin's own calls the view a second time, with other arguments, when it raises a TypeError.
        return fn(self, *args, **kwargs)

    def render(self, template: str, **values: Any) -> str:
        """A page from its template."""
        return str(super().render(template, **values))


def init_app(app: Flask, home: Page, *pages: Page) -> None:
    """Register the pages; `home` is the first thing one sees."""
    frame = Admin(
        app,
        name="Batchdesk",
        url="/",
        index_view=home,
        theme=Bootstrap4Theme(base_template="desk/base.html"),
        csp_nonce_generator=nonce,
    )
    frame.add_views(*pages)


def reading() -> Connection:
    """The connection of this request, for reads; given back when the request is over."""
    return db.session.connection()


def done_reading() -> None:
    """Give the connection of this request back before a wait, such as for the API; `reading` takes another one."""
    db.session.rollback()


def act(back: str, deed: Callable[[], str]) -> ResponseReturnValue:
    """Do what was confirmed and go back; what was done, or why not, is said on the page one gets to."""
    try:
        flash(deed(), "success")
    except NotFound:  # a page of its own: there may be none to go back to
        raise
    except BatchdeskError as error:
        flash(str(error), "error")
    else:
        if jobs.queue_trouble() is not None:
            flash("It is noted, and waits: the queue (Redis or Valkey) takes nothing just now.", "error")
    return redirect(back, 303)


def back_to(default: str) -> str:
    """Where to go after an action: the page it was asked from, filters and all, if that is one of ours."""
    asked = request.values.get("back", "")
    parts = urlsplit(asked.replace("\\", "/"))
    ours = asked.startswith("/") and not asked.startswith("//") and not parts.netloc and asked.isprintable()
    return asked if ours and "\\" not in asked else default
