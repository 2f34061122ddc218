"""What an admin does about people: make them, say what they may do, let them in again, keep them out. The users page
calls it; each verb is one transaction with its event. Somebody is always left who can do all this.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from flask_security.utils import hash_password
from sqlalchemy import Connection

from webapp import db
from webapp.admin import tries
from webapp.admin.people import LONGEST_NAME, RoleName, made_password, sign_in_name
from webapp.admin.signing import PERSON, weakness
from webapp.batches.books import note
from webapp.errors import InputError, NotFound, Refused
from webapp.records.escapes import one_line

LAST = "This is the last admin who can sign in: give somebody else the role first."


def add(name: str, role: RoleName, password: str, *, actor: str) -> tuple[int, str | None]:
    """Make a person; their id, and the password if one had to be made.

    :param password: what it is to be; empty: one is made.
    :raises InputError: the name or the password will not do.
    """
    name = sign_in_name(name)
    if not name or not name.isprintable() or len(name) > LONGEST_NAME:
        raise InputError(f"A sign-in name has 1 to {LONGEST_NAME} characters, all of which can be shown.")
    fault = weakness(password, name) if password else None
    if fault:
        raise InputError(fault)
    chosen = password or made_password()
    hashed = hash_password(chosen)  # takes its time: outside the transaction
    with db.transaction() as tx:
        user_id = db.scalar(
            tx,
            "INSERT INTO users (email, password, active, fs_uniquifier) VALUES (:name, :password, true, :session) "
            "ON CONFLICT (email) DO NOTHING RETURNING id",
            name=name,
            password=hashed,
            session=uuid4().hex,
        )
        if user_id is None:
            raise Refused(f"There is a {one_line(name)} already.")
        _give(tx, user_id, role)
        _tell(tx, name, f"Made, as {role}.", actor)
    return int(user_id), None if password else chosen


def change_role(user_id: int, role: RoleName | None, *, actor: str) -> str:
    """Let a person do what a role may, and no more; None: nothing at all. Their name."""
    with db.transaction() as tx:
        person = _person(tx, user_id)
        if role is not RoleName.ADMIN:
            _keep_an_admin(tx, person)
        db.run(tx, "DELETE FROM roles_users WHERE user_id = :id", id=user_id)
        if role is not None:
            _give(tx, user_id, role)
        _tell(tx, person.email, f"Role: {role or 'none'}; before: {person.roles or 'none'}.", actor)
    return str(person.email)


def deactivate(user_id: int, *, actor: str) -> str:
    """Keep a person out from the next click on. Their name."""
    with db.transaction() as tx:
        person = _person(tx, user_id)
        _keep_an_admin(tx, person)
        db.run(tx, "UPDATE users SET active = false, fs_uniquifier = :new WHERE id = :id", id=user_id, new=uuid4().hex)
        _tell(tx, person.email, "Deactivated; all sessions are over.", actor)
    return str(person.email)


def activate(user_id: int, *, actor: str) -> str:
    """Let a person sign in again. Their name."""
    with db.transaction() as tx:
        person = _person(tx, user_id)
        db.run(tx, "UPDATE users SET active = true WHERE id = :id", id=user_id)
        _tell(tx, person.email, "Activated.", actor)
    return str(person.email)


def new_password(user_id: int, *, actor: str) -> tuple[str, str]:
    """Make a new password for a person; their name and the password, which is told once. All sessions end."""
    made = made_password()
    hashed = hash_password(made)
    with db.transaction() as tx:
        person = _person(tx, user_id)
        db.run(
            tx,
            "UPDATE users SET password = :password, fs_uniquifier = :new WHERE id = :id",
            id=user_id,
            password=hashed,
            new=uuid4().hex,
        )
        tries.unlock(tx, person.email)
        _tell(tx, person.email, "Given a new password; all sessions are over.", actor)
    return str(person.email), made


def unlock(user_id: int, *, actor: str) -> str:
    """Let a person try to sign in again, wherever wrong tries have locked it. Their name."""
    with db.transaction() as tx:
        person = _person(tx, user_id)
        if tries.unlock(tx, person.email):
            _tell(tx, person.email, "Unlocked.", actor)
    return str(person.email)


def end_sessions(user_id: int, *, actor: str) -> str:
    """Sign a person out everywhere. Their name."""
    with db.transaction() as tx:
        person = _person(tx, user_id)
        db.run(tx, "UPDATE users SET fs_uniquifier = :new WHERE id = :id", id=user_id, new=uuid4().hex)
        _tell(tx, person.email, "All sessions ended.", actor)
    return str(person.email)


def is_last_admin(tx: Connection, user_id: int) -> bool:
    """Whether nobody else could manage people without this one."""
    admins = {admin for (admin,) in db.rows(tx, _ADMINS)}
    return admins == {user_id}


_ADMINS = (
    "SELECT u.id FROM users u JOIN roles_users ru ON ru.user_id = u.id JOIN roles r ON r.id = ru.role_id "
    "WHERE r.name = 'admin' AND u.active"
)


def _person(tx: Connection, user_id: int) -> Any:
    """A person, whom nobody else changes before this transaction is over; nor anybody else's role."""
    # One at a time: of two admins who take each other's role away, the second finds the first gone.
    db.run(tx, "SELECT id FROM roles WHERE name = 'admin' FOR UPDATE")
    person = db.row(
        tx,
        "SELECT u.id, u.email, u.active, (SELECT string_agg(r.name, ', ' ORDER BY r.name) FROM roles_users ru "
        "JOIN roles r ON r.id = ru.role_id WHERE ru.user_id = u.id) AS roles FROM users u WHERE u.id = :id FOR UPDATE",
        id=user_id,
    )
    if person is None:
        raise NotFound(f"There is no person {user_id}.")
    return person


def _keep_an_admin(tx: Connection, person: Any) -> None:
    if is_last_admin(tx, person.id):
        raise Refused(LAST)


def _give(tx: Connection, user_id: int, role: RoleName) -> None:
    db.run(
        tx,
        "INSERT INTO roles_users (user_id, role_id) SELECT :id, id FROM roles WHERE name = :role",
        id=user_id,
        role=role.value,
    )


def _tell(tx: Connection, name: str, reason: str, actor: str) -> None:
    note(tx, run_id=None, actor=actor, reason=reason, kind="person", target=(PERSON, name))
