"""Who may do what: everything is denied to those not signed in, and every change to those who only look.
One check before each request, so that a page that forgets to ask is closed, not open.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from flask import Flask, abort, redirect, request, url_for
from flask.typing import ResponseReturnValue
from flask_security import current_user

from webapp.admin.people import RoleName

# Open to everybody: the sign-in page and what it is drawn with, and the two health pages.
OPEN = frozenset({"security.login", "static", "home.static", "health.healthz", "health.readyz"})
# What people without an acting role may post.
OPEN_POSTS = frozenset({"security.login", "security.logout"})
READS = frozenset({"GET", "HEAD", "OPTIONS"})
ACTING = (RoleName.OPERATOR.value, RoleName.ADMIN.value)

View = TypeVar("View", bound=Callable[..., Any])


def init_app(app: Flask) -> None:
    """Put the check before every request, and `may_act` into every page."""
    app.before_request(check)
    app.context_processor(lambda: {"may_act": may_act})


def may_act() -> bool:
    """Whether the person may change anything."""
    return any(role.name in ACTING for role in getattr(current_user, "roles", ()))


def actor() -> str:
    """Who acts, as events name them."""
    return str(current_user.email)


def check() -> ResponseReturnValue | None:
    """Let a request through, or answer it: sign in first, or not allowed. Unknown addresses are no exception."""
    if request.endpoint in OPEN:
        return None
    if not current_user.is_authenticated:
        return _sign_in_first()
    if not current_user.roles:
        abort(403, "Your account has no role yet: an admin can give it one.")
    if request.method not in READS and request.endpoint not in OPEN_POSTS and not may_act():
        abort(403, "You may look, not act: an operator or an admin can do this.")
    return None


def _sign_in_first() -> ResponseReturnValue:
    asks_for_page = request.method in READS and request.accept_mimetypes.accept_html
    if not asks_for_page:
        abort(401, "You are not signed in, or your session has ended. Sign in, then do it again.")
    target = request.full_path.rstrip("?")
    return redirect(url_for("security.login", next=None if target == "/" else target))


def acts(view: View) -> View:
    """Mark a page that is a part of acting (a confirmation): those who only look do not get it."""

    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if not may_act():
            abort(403, "You may look, not act: an operator or an admin can do this.")
        return view(*args, **kwargs)

    return guarded  # type: ignore[return-value]
