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
from werkzeug.middleware.proxy_fix import ProxyFix

from webapp.admin.people import RoleName
from webapp.batches import whence

# Open to everybody: the sign-in page and what it is drawn with, and the two health pages.
OPEN = frozenset({"security.login", "static", "home.static", "health.healthz", "health.readyz"})
# What people without an acting role may post: in, out, and their own password.
OPEN_POSTS = frozenset({"security.login", "security.logout", "security.change_password"})
# Pages that are for admins as a whole, by blueprint: what is added to them is closed to others from the start.
MANAGING = frozenset({"users"})
READS = frozenset({"GET", "HEAD", "OPTIONS"})
ACTING = (RoleName.OPERATOR.value, RoleName.ADMIN.value)

View = TypeVar("View", bound=Callable[..., Any])


ONLY_LOOK = "You may look, not act: an operator or an admin can do this."
ONLY_ADMINS = "This is for admins."


def init_app(app: Flask) -> None:
    """Put the check before every request, and what the person may do into every page."""
    _believe_proxies(app)
    app.before_request(check)
    app.teardown_request(lambda _: whence.act_from(None))
    app.context_processor(lambda: {"may_act": may_act, "may_manage": may_manage})


def _believe_proxies(app: Flask) -> None:
    """Take addresses and the scheme from what the nearest proxies say, and from no one farther off."""
    count = app.extensions["batchdesk"].settings.trusted_proxies
    if count:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=count, x_proto=count, x_host=0)  # type: ignore[method-assign]


def may_act() -> bool:
    """Whether the person may change anything."""
    return any(role.name in ACTING for role in getattr(current_user, "roles", ()))


def may_manage() -> bool:
    """Whether the person may change what others may do."""
    return any(role.name == RoleName.ADMIN for role in getattr(current_user, "roles", ()))


def actor() -> str:
    """Who acts, as events name them."""
    return str(current_user.email)


def check() -> ResponseReturnValue | None:
    """Let a request through, or answer it: sign in first, or not allowed. Unknown addresses are no exception."""
    whence.act_from(request.remote_addr)
    if request.endpoint in OPEN:
        return None
    if not current_user.is_authenticated:
        return _sign_in_first()
    if request.endpoint == "security.logout":
        return None
    if not current_user.roles:
        abort(403, "Your account has no role yet: an admin can give it one.")
    if request.blueprint in MANAGING and not may_manage():
        abort(403, ONLY_ADMINS)
    if request.method not in READS and request.endpoint not in OPEN_POSTS and not may_act():
        abort(403, ONLY_LOOK)
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
            abort(403, ONLY_LOOK)
        return view(*args, **kwargs)

    return guarded  # type: ignore[return-value]


def manages(view: View) -> View:
    """Mark a page that only admins get, among others that are for everybody."""

    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if not may_manage():
            abort(403, ONLY_ADMINS)
        return view(*args, **kwargs)

    return guarded  # type: ignore[return-value]
