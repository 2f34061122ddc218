"""Signing in and out, and changing one's own password: Flask-Security's forms with our counting of wrong tries, our
rules for passwords, and an event for each. `people` sets it up; the users page asks `weakness`.
"""

from __future__ import annotations

from typing import Any

from flask import Flask, current_app, flash, g, has_request_context, request, session
from flask.sessions import SecureCookieSessionInterface
from flask_login import user_logged_out  # type: ignore[import-untyped]
from flask_security import ChangePasswordForm, LoginForm, PasswordUtil, UserMixin, current_user, password_changed
from sqlalchemy import func

from webapp.admin import tries
from webapp.admin.people import User, sign_in_name
from webapp.batches import whence
from webapp.batches.books import note
from webapp.db import db, transaction
from webapp.errors import Refused

PERSON = "person"  # the kind of what events about people are about
NOBODY = "not signed in"  # who tries to sign in, and is not let in
FEWEST = 5  # different characters in a password


class Passwords(PasswordUtil):
    """What a password that people choose must not be, beside too short."""

    def validate(self, password: str, is_register: bool, **kwargs: Any) -> tuple[list[str] | None, str]:
        faults, chosen = super().validate(password, is_register, **kwargs)
        name = getattr(kwargs.get("user"), "email", None) or kwargs.get("email") or ""
        fault = _too_easy(chosen.lower(), sign_in_name(str(name)))
        return faults or ([fault] if fault else None), chosen


def _too_easy(password: str, name: str) -> str | None:
    if len(set(password)) < FEWEST:
        return f"A password has at least {FEWEST} different characters."
    if name and (name in password or name.partition("@")[0] == password):
        return "A password does not hold the sign-in name."
    return None


def weakness(password: str, name: str) -> str | None:
    """Why a password will not do for a person, or None."""
    faults, _ = current_app.extensions["security"].password_util.validate(password, True, email=name)
    return faults[0] if faults else None


class SignInForm(LoginForm):
    """Theirs, which looks at no password once there were too many wrong ones."""

    remember = None  # a session ends with the browser

    def validate(self, **kwargs: Any) -> bool:
        if not self.email.data or not self.password.data:
            return bool(super().validate(**kwargs))
        name = sign_in_name(self.email.data)
        try:
            charged = tries.charge(name, request.remote_addr)
        except Refused as refused:
            self.form_errors.append(str(refused))
            return False
        if not super().validate(**kwargs) or not isinstance(self.user, User):
            _failed(self.user, charged, switched_off=self.user_authenticated)
            return False
        _signed_in(self.user, charged)
        return True


class OwnPasswordForm(ChangePasswordForm):
    """Theirs; a session that somebody left open is no way to guess at the password."""

    def validate(self, **kwargs: Any) -> bool:
        try:
            charged = tries.charge(current_user.email, request.remote_addr)
        except Refused as refused:
            self.form_errors.append(str(refused))
            return False
        sound = bool(super().validate(**kwargs))
        # The old password is looked at before the new one: only what is wrong about it counts.
        if sound or not self.password.errors:
            with transaction() as tx:
                tries.forgive(tx, charged)
        return sound


class Sessions(SecureCookieSessionInterface):
    """Over TLS, the cookie of a session is sent over TLS alone."""

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure


def init_app(app: Flask) -> None:
    """Write what happens at signing out and after a change of password."""
    app.session_interface = Sessions()
    # Flask-Security hands out tokens that outlive the session to whoever asks while signing in; here they open nothing.
    app.login_manager.request_loader(lambda _: None)  # type: ignore[attr-defined]
    user_logged_out.connect(_signed_out, app)
    password_changed.connect(_changed_password, app)


def _failed(user: UserMixin | None, charged: tries.Charged, *, switched_off: bool) -> None:
    """A name that does not exist is not kept: it may be a password, typed into the wrong field."""
    reason = "The password was wrong." if user else "There is nobody of that name."
    if switched_off:
        reason = "The password was right; the person is deactivated."
    locks = {
        "pair": "signing in with this name from there is locked",
        "name": "the name is locked from where the person has not signed in lately",
        "address": "signing in from there is locked for whom it is new to",
    }
    words = [f"That were {tries.LIMITS[scope]} failures: {locks[scope]}." for scope in charged.full]
    with transaction() as tx:
        note(
            tx,
            run_id=None,
            actor=NOBODY,
            reason=" ".join([reason, *words]),
            kind="sign_in_failed",
            target=(PERSON, user.email) if user else None,
        )
        tries.tidy(tx)


def _signed_in(user: User, charged: tries.Charged) -> None:
    """Begin a session that nobody else can know anything of; committed with what Flask-Security writes."""
    assert user is not None
    session.clear()
    g.pop("csrf_token", None)
    user.signed_in_at = func.now()
    tx = db.session.connection()
    tries.forgive(tx, charged)
    note(tx, run_id=None, actor=user.email, reason="Signed in.", kind="sign_in", target=(PERSON, user.email))


def _signed_out(app: Flask, user: UserMixin | None = None, **extra: Any) -> None:
    if user is not None and user.is_authenticated:
        with transaction() as tx:
            note(tx, run_id=None, actor=user.email, reason="Signed out.", kind="sign_out", target=(PERSON, user.email))


def _changed_password(app: Flask, user: UserMixin, **extra: Any) -> None:
    """Within the transaction that changes it; `flask users change_password` does so too."""
    by_person = has_request_context()
    reason = "Changed their own password; all other sessions are over." if by_person else "Given a new password."
    note(db.session.connection(), run_id=None, actor=user.email if by_person else whence.COMMAND_LINE, reason=reason,
         kind="person", target=(PERSON, user.email))  # fmt: skip
    if by_person:
        flash("Your password is changed. Whoever was signed in as you elsewhere is out.", "success")
