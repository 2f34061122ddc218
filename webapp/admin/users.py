"""The pages of people, for admins: who may sign in, what they may do, and the buttons for it. Registered by `init_app`
of this room. A password that was made is shown in the answer to the POST that made it, and nowhere else.
"""

from __future__ import annotations

from typing import Any

from flask import abort, flash, redirect, request, url_for
from flask.typing import ResponseReturnValue
from flask_security import current_user
from sqlalchemy import Connection

from webapp import db
from webapp.admin import staff, tries
from webapp.admin.access import actor, may_manage
from webapp.admin.filters import Asked, Cursor, Found, page_of
from webapp.admin.frame import Page, act, back_to, expose, reading
from webapp.admin.people import DESCRIPTIONS, SHORTEST, RoleName
from webapp.admin.signing import PERSON
from webapp.errors import BatchdeskError

PER_PAGE = 50
EVENTS = 20
NO_ROLE = "none"
# What is asked about a person before it is done: the question, what it means, the button (and that for oneself).
DEEDS = {
    "deactivate": (
        "Deactivate {}?",
        "They are out at their next click, and cannot sign in until they are activated again. What they did stays.",
        ("Deactivate", "Deactivate myself"),
    ),
    "password": (
        "Give {} a new password?",
        "One is made and shown once, for you to hand over. The old one is no good any more, and whoever is signed in "
        "with it is out. Where wrong tries have locked the name, it is unlocked.",
        ("Make a new password", "Make a new password for myself"),
    ),
    "sessions": (
        "End all sessions of {}?",
        "They are out at their next click, on every device, and sign in again with the same password.",
        ("End all sessions", "End all my sessions"),
    ),
}


class UsersPage(Page):
    """People, by name."""

    def is_visible(self) -> bool:
        return may_manage()

    @expose("/")
    def index(self) -> ResponseReturnValue:
        tx, asked = reading(), Asked()
        cursor = Cursor.of(asked)
        role = asked.choice("role", [*RoleName, NO_ROLE])
        words = asked.text("q")
        found = page_of(lambda at: _list(tx, at, role, words), cursor, PER_PAGE)
        return self.render(
            "desk/users.html",
            found=found,
            asked=asked,
            cursor=cursor,
            roles=[*RoleName, NO_ROLE],
            locked=tries.locked(tx, [person.email for person in found.rows]),
        )

    @expose("/add", methods=("GET", "POST"))
    def add(self) -> ResponseReturnValue:
        if request.method != "POST":
            return self._form(None)
        role = request.form.get("role", "")
        if role not in list(RoleName):
            return self._form("Choose a role.")
        name, password = request.form.get("name", ""), request.form.get("password", "")
        try:
            user_id, made = staff.add(name, RoleName(role), password, actor=actor())
        except BatchdeskError as error:
            return self._form(str(error))
        if made is None:
            flash("They can sign in now, with the password that you gave.", "success")
            return redirect(url_for(".details", user_id=user_id), 303)
        return self._told_once(user_id, made)

    @expose("/<row:user_id>/")
    def details(self, user_id: int) -> ResponseReturnValue:
        tx = reading()
        person = find(tx, user_id)
        return self.render(
            "desk/user.html",
            person=person,
            roles=list(RoleName),
            descriptions=DESCRIPTIONS,
            locked=tries.locked(tx, [person.email]).get(person.email),
            last_admin=staff.is_last_admin(tx, user_id),
            oneself=_is_oneself(user_id),
            events=about(tx, person.email),
        )

    @expose("/<row:user_id>/role", methods=("GET", "POST"))
    def role(self, user_id: int) -> ResponseReturnValue:
        """Give a person another role; whoever takes their own away is asked first."""
        here = url_for(".details", user_id=user_id)
        wanted = request.values.get("role", "")
        if wanted not in [*RoleName, NO_ROLE]:
            abort(404, "There is no such role.")
        role = None if wanted == NO_ROLE else RoleName(wanted)
        sure = not _is_oneself(user_id) or role is RoleName.ADMIN or "sure" in request.form
        if request.method != "POST" or not sure:
            person = find(reading(), user_id)
            return self.render("desk/user_role.html", person=person, role=wanted, back=here, oneself=not sure)

        def deed() -> str:
            name = staff.change_role(user_id, role, actor=actor())
            return f"{name} has the role {role} now." if role else f"{name} has no role now, and sees nothing."

        return act(_after(user_id, here, lost=role is not RoleName.ADMIN), deed)

    @expose("/<row:user_id>/<any(deactivate, password, sessions):what>", methods=("GET", "POST"))
    def ask(self, user_id: int, what: str) -> ResponseReturnValue:
        """Ask, then do: keep a person out, give them another password, end their sessions."""
        here = url_for(".details", user_id=user_id)
        oneself = _is_oneself(user_id)
        if request.method != "POST" or (oneself and "sure" not in request.form):
            person = find(reading(), user_id)
            question, told, buttons = DEEDS[what]
            return self.render(
                "desk/user_confirm.html",
                person=person,
                question=question.format(person.email),
                told=told,
                button=buttons[oneself],
                back=here,
                oneself=oneself,
            )
        if what == "password":
            _, made = staff.new_password(user_id, actor=actor())
            return self._told_once(user_id, made)
        if what == "sessions":
            return act(here, lambda: f"{staff.end_sessions(user_id, actor=actor())} is signed out everywhere.")
        return act(here, lambda: f"{staff.deactivate(user_id, actor=actor())} is deactivated.")

    @expose("/<row:user_id>/activate", methods=("POST",))
    def activate(self, user_id: int) -> ResponseReturnValue:
        back = back_to(url_for(".details", user_id=user_id))
        return act(back, lambda: f"{staff.activate(user_id, actor=actor())} can sign in again.")

    @expose("/<row:user_id>/unlock", methods=("POST",))
    def unlock(self, user_id: int) -> ResponseReturnValue:
        back = back_to(url_for(".details", user_id=user_id))
        return act(back, lambda: f"{staff.unlock(user_id, actor=actor())} is locked nowhere.")

    def _form(self, fault: str | None) -> ResponseReturnValue:
        page = self.render(
            "desk/user_add.html",
            fault=fault,
            name=request.form.get("name", ""),
            role=request.form.get("role", RoleName.VIEWER.value),
            roles=list(RoleName),
            descriptions=DESCRIPTIONS,
            shortest=SHORTEST,
        )
        return page, 400 if fault else 200

    def _told_once(self, user_id: int, password: str) -> ResponseReturnValue:
        with db.transaction() as tx:  # as it is now: this request may have read the person before
            person = find(tx, user_id)
        return self.render("desk/user_password.html", person=person, password=password)


def find(tx: Connection, user_id: int) -> Any:
    """A person with their roles; answers 404 when there is none."""
    person = db.row(tx, f"{_PEOPLE} WHERE u.id = :id", id=user_id)
    if person is None:
        abort(404, f"There is no person {user_id}.")
    return person


_PEOPLE = """
    SELECT u.id, u.email, u.active, u.created_at, u.signed_in_at,
           (SELECT string_agg(r.name, ', ' ORDER BY r.name) FROM roles_users ru JOIN roles r ON r.id = ru.role_id
            WHERE ru.user_id = u.id) AS roles
    FROM users u
"""


def _list(tx: Connection, cursor: Cursor, role: str | None, words: str | None) -> Found:
    rows = db.rows(
        tx,
        f"""
        {_PEOPLE} WHERE {cursor.sql("u.id")}
          AND (CAST(:words AS text) IS NULL OR strpos(u.email, lower(:words)) > 0)
          AND (CAST(:role AS text) IS NULL OR CASE :role WHEN 'none'
               THEN NOT EXISTS (SELECT 1 FROM roles_users ru WHERE ru.user_id = u.id)
               ELSE EXISTS (SELECT 1 FROM roles_users ru JOIN roles r ON r.id = ru.role_id
                            WHERE ru.user_id = u.id AND r.name = :role) END)
        ORDER BY {cursor.order("u.id")} LIMIT :limit
        """,  # noqa: S608 - the cursor writes names that we gave it
        start=cursor.start,
        role=role,
        words=words,
        limit=PER_PAGE + 1,
    )
    return Found(list(rows))


def about(tx: Connection, name: str) -> list[Any]:
    """What happened to a person last: signing in, also in vain, and what was done about them."""
    return list(
        db.rows(
            tx,
            "SELECT id, at, kind, actor, address, reason FROM events WHERE target_kind = :kind AND target = :name "
            "ORDER BY id DESC LIMIT :limit",
            kind=PERSON,
            name=name,
            limit=EVENTS,
        )
    )


def _is_oneself(user_id: int) -> bool:
    return bool(current_user.id == user_id)


def _after(user_id: int, here: str, *, lost: bool) -> str:
    """Where to go: whoever has just given their own role up cannot come back here."""
    return url_for("home.index") if lost and _is_oneself(user_id) else here
