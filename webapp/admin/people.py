"""The people who may sign in, and their roles; Flask-Security reads and writes them through `store`.
The wiring calls `init_app`; whoever prepares an installation calls `ensure_roles_and_admin`.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from enum import StrEnum

from flask import Flask
from flask_security import Security, SQLAlchemySessionUserDatastore
from flask_security.core import RoleMixin, UserMixin
from flask_security.mail_util import EmailValidateException, MailUtil
from flask_security.utils import hash_password
from sqlalchemy import Column, ForeignKey, Identity, Table, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column, relationship

from webapp.db import Base, db
from webapp.settings import Settings

PASSWORD_BYTES = 12  # of a password that we make: 96 bits
SHORTEST = 12  # characters of a password that a person chooses
LONGEST_NAME = 200


class RoleName(StrEnum):
    VIEWER = "viewer"  # sees everything
    OPERATOR = "operator"  # ... and acts on runs and batches
    ADMIN = "admin"  # ... and manages people and plugins


DESCRIPTIONS = {
    RoleName.VIEWER: "Sees everything.",
    RoleName.OPERATOR: "Sees everything, and acts on runs and batches.",
    RoleName.ADMIN: "Does what an operator does, and manages people and plugins.",
}

roles_users = Table(
    "roles_users",
    Base.metadata,
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("role_id", ForeignKey("roles.id", ondelete="CASCADE"), primary_key=True),
)


class Role(Base, RoleMixin):
    """A name for what a person may do; see `RoleName`."""

    __tablename__ = "roles"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    description: Mapped[str | None]


class User(Base, UserMixin):
    """A person. The password is an argon2 hash; `fs_uniquifier` stands in the session, and changes to end them all."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    password: Mapped[str | None]
    active: Mapped[bool]
    fs_uniquifier: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    signed_in_at: Mapped[datetime | None]
    # Every page asks for the roles: one query brings both.
    roles: Mapped[list[Role]] = relationship(secondary=roles_users, lazy="joined")  # type: ignore[assignment]


class SignInNames(MailUtil):
    """A sign-in name is what the administrator chose: it need not be an address that mail reaches."""

    def normalize(self, email: str) -> str:
        name = sign_in_name(email)
        if not name.isprintable() or len(name) > LONGEST_NAME:  # also NUL, which the database refuses
            raise EmailValidateException("This is no sign-in name.")
        return name

    validate = normalize


def sign_in_name(email: str) -> str:
    """A sign-in name as it is stored: upper and lower case are the same."""
    return email.strip().lower()


store = SQLAlchemySessionUserDatastore(db.session, User, Role)

CONFIG = {
    "SECURITY_PASSWORD_HASH": "argon2",
    # Argon2 has a salt of its own; another one for all would be one more secret to keep.
    "SECURITY_PASSWORD_SINGLE_HASH": True,
    "SECURITY_PASSWORD_SCHEMES": ["argon2"],
    "SECURITY_API_ENABLED_METHODS": ["session"],
    "SECURITY_STATIC_FOLDER": None,
    "SECURITY_FLASH_MESSAGES": False,
    "SECURITY_CACHE_CONTROL": None,  # `headers` says it for every page
    "SECURITY_FRESHNESS": timedelta(minutes=-1),  # no "enter your password again", and no page for it
    "SECURITY_RETURN_GENERIC_RESPONSES": True,
    "SECURITY_MSG_GENERIC_AUTHN_FAILED": ("The name or the password is wrong.", "error"),
    "SECURITY_MSG_EMAIL_NOT_PROVIDED": ("Enter your sign-in name.", "error"),
    "SECURITY_MSG_PASSWORD_NOT_PROVIDED": ("Enter your password.", "error"),
    # Whoever is signed in changes their own password; the page is ours, the machinery theirs.
    "SECURITY_CHANGEABLE": True,
    "SECURITY_CHANGE_URL": "/account/password",
    "SECURITY_POST_CHANGE_VIEW": "account.index",
    "SECURITY_SEND_PASSWORD_CHANGE_EMAIL": False,
    "SECURITY_PASSWORD_LENGTH_MIN": SHORTEST,
    "SECURITY_MSG_PASSWORD_INVALID_LENGTH": (f"A password has {SHORTEST} to 128 characters.", "error"),
    "SECURITY_MSG_INVALID_PASSWORD": ("That is not your password.", "error"),
    "SECURITY_MSG_PASSWORD_IS_THE_SAME": ("The new password is the old one.", "error"),
    "SECURITY_MSG_RETYPE_PASSWORD_MISMATCH": ("The new password is not the same both times.", "error"),
    "SESSION_COOKIE_HTTPONLY": True,
    "SESSION_COOKIE_SAMESITE": "Lax",
    "REMEMBER_COOKIE_HTTPONLY": True,
    "REMEMBER_COOKIE_SAMESITE": "Lax",
}


def init_app(app: Flask) -> None:
    """Set up sign-in: nobody registers or recovers by themselves; an admin makes people, and helps them."""
    from webapp.admin import signing

    app.config.update(CONFIG)
    Security(
        app,
        store,
        mail_util_cls=SignInNames,
        password_util_cls=signing.Passwords,
        login_form=signing.SignInForm,
        change_password_form=signing.OwnPasswordForm,
        register_blueprint=True,
    )
    signing.init_app(app)


def ensure_roles_and_admin(settings: Settings) -> str | None:
    """Make the roles, and the first admin when there is none. May be repeated, also at the same time.

    :returns: the password, when one had to be made; it is stored as a hash only, so print it now.
    """
    session = db.session
    values = [{"name": name.value, "description": DESCRIPTIONS[name]} for name in RoleName]
    session.execute(insert(Role).values(values).on_conflict_do_nothing(index_elements=["name"]))
    # The lock lets one of several callers at a time look for an admin and make it.
    admin = session.scalars(select(Role).where(Role.name == RoleName.ADMIN).with_for_update()).one()
    made = None
    if session.scalar(select(roles_users.c.user_id).where(roles_users.c.role_id == admin.id).limit(1)) is None:
        made = _make_admin(settings, admin)
    session.commit()
    return made


def made_password() -> str:
    """A password that nobody chose; it is stored as a hash only, so it is told once."""
    return secrets.token_urlsafe(PASSWORD_BYTES)


def _make_admin(settings: Settings, role: Role) -> str | None:
    email = sign_in_name(settings.admin_email)
    known = db.session.scalars(select(User).where(User.email == email)).unique().one_or_none()
    if known is not None:
        known.roles.append(role)
        return None
    given = settings.admin_password.get_secret_value() if settings.admin_password else None
    password = given or made_password()
    store.create_user(email=email, password=hash_password(password), active=True, roles=[role])
    return None if given else password
