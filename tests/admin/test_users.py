"""People, as admins manage them: each act, its event, and who is out because of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from flask import Flask
from support.desk import DeskDriver
from support.people import PASSWORD, make_person
from support.visitor import Visitor

from webapp.admin import staff
from webapp.admin.people import RoleName
from webapp.errors import NotFound, Refused

MADE = re.compile(r'class="password"><code>([^<]+)</code>')


@pytest.fixture
def ann(app: Flask) -> str:
    """A viewer's name."""
    return make_person("viewer", "ann")


def id_of(desk: DeskDriver, name: str) -> int:
    return int(desk.scalar("SELECT id FROM users WHERE email = :name", name=name))


def events(desk: DeskDriver, name: str) -> list[str]:
    """What was done about a person, the latest last."""
    found = desk.rows(
        "SELECT reason, actor, address FROM events WHERE kind = 'person' AND target = :name ORDER BY id", name=name
    )
    assert all((one.actor, one.address) == ("admin@desk.example", "127.0.0.1") for one in found)
    return [one.reason for one in found]


def test_only_admins_see_that_there_is_such_a_page(admin: Visitor, operator: Visitor) -> None:
    assert 'href="/users/"' in admin.get("/")
    assert 'href="/users/"' not in operator.get("/")
    assert "This is for admins" in operator.get("/users/", 403)


def test_the_list_says_who_there_is_and_what_they_may(admin: Visitor, ann: str) -> None:
    make_person(None)
    page = admin.get("/users/")

    for name in (ann, "admin@desk.example", "nobody@desk.example"):
        assert name in page
    assert "none: sees nothing" in page and "never" in page
    assert ann not in admin.get("/users/?role=admin")
    assert ann not in admin.get("/users/?role=none") and "nobody@desk" in admin.get("/users/?role=none")
    assert "nobody@desk" not in admin.get("/users/?q=ANN")
    assert "Nobody fits" in admin.get("/users/?q=%25")


def test_a_person_is_added_with_a_password_that_is_shown_once(app: Flask, admin: Visitor, desk: DeskDriver) -> None:
    response = admin.send("/users/add", name=" Bob@Example.com ", role="operator")
    made = MADE.search(response.text)
    assert response.status_code == 200 and made

    Visitor(app).sign_in("bob@example.com", made[1]).get("/runs/")
    assert events(desk, "bob@example.com") == ["Made, as operator."]
    assert made[1] not in str(response.headers) and made[1] not in admin.get("/users/")
    stored = desk.rows("SELECT row_to_json(e)::text AS e FROM events e") + desk.rows("SELECT * FROM users")
    assert made[1] not in str(stored)


def test_a_person_is_added_with_a_password_that_was_given(app: Flask, admin: Visitor) -> None:
    page = admin.post("/users/add", name="bob", role="viewer", password="a fine long one")

    assert "with the password that you gave" in page and "a fine long one" not in page
    Visitor(app).sign_in("bob", "a fine long one").get("/")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "", "role": "viewer"}, "1 to 200 characters"),
        ({"name": "n" * 201, "role": "viewer"}, "1 to 200 characters"),
        ({"name": "nul\0", "role": "viewer"}, "can be shown"),
        ({"name": "ann@desk.example", "role": "viewer"}, "There is a ann@desk.example already."),
        ({"name": "bob", "role": "king"}, "Choose a role."),
        ({"name": "bob"}, "Choose a role."),
        ({"name": "bob", "role": "viewer", "password": "short"}, "12 to 128 characters"),
        ({"name": "bob", "role": "viewer", "password": "x" * 129}, "12 to 128 characters"),
        ({"name": "bob", "role": "viewer", "password": "abababababab"}, "different characters"),
        ({"name": "bobbybrown", "role": "viewer", "password": "xx bobbybrown xx"}, "sign-in name"),
    ],
)
def test_what_will_not_do_for_a_person_is_said(
    admin: Visitor, ann: str, desk: DeskDriver, fields: dict[str, str], words: str
) -> None:
    before = desk.scalar("SELECT count(*) FROM users")
    response = admin.send("/users/add", **fields)

    assert response.status_code == 400 and words in response.text
    if "password" in fields:
        assert fields["password"] not in response.text
    assert desk.scalar("SELECT count(*) FROM users") == before


def test_another_role_counts_from_the_next_click(app: Flask, admin: Visitor, ann: str, desk: DeskDriver) -> None:
    here, someone = f"/users/{id_of(desk, ann)}", Visitor(app).sign_in(ann)
    assert "an operator or an admin" in someone.get("/runs/1/cancel", 403)

    assert f"{ann} has the role operator now" in admin.post(f"{here}/role", role="operator")
    assert someone.open("/runs/1/cancel").status_code == 404, "there is no such run, but they may"
    admin.post(f"{here}/role", role="none")
    assert "no role yet" in someone.get("/", 403)
    assert someone.send("/logout").status_code == 302
    assert events(desk, ann) == ["Role: operator; before: viewer.", "Role: none; before: operator."]


def test_a_role_that_does_not_exist_is_not_given(admin: Visitor, ann: str, desk: DeskDriver) -> None:
    for role in ("king", "", "admin,viewer"):
        assert admin.send(f"/users/{id_of(desk, ann)}/role", role=role).status_code == 404
    assert events(desk, ann) == []


def test_whoever_is_deactivated_is_out_until_activated(app: Flask, admin: Visitor, ann: str, desk: DeskDriver) -> None:
    here, someone = f"/users/{id_of(desk, ann)}", Visitor(app).sign_in(ann)
    assert "Deactivate ann@desk.example?" in admin.get(f"{here}/deactivate")
    someone.get("/")

    assert "deactivated" in admin.post(f"{here}/deactivate")
    assert someone.open("/").status_code == 302
    refused = Visitor(app).send("/login", email=ann, password=PASSWORD)
    assert refused.status_code == 200

    admin.post(f"{here}/activate")
    Visitor(app).sign_in(ann).get("/")
    assert events(desk, ann) == ["Deactivated; all sessions are over.", "Activated."]


def test_a_new_password_is_told_in_the_answer_and_nowhere_else(
    app: Flask, admin: Visitor, ann: str, desk: DeskDriver, caplog: pytest.LogCaptureFixture
) -> None:
    here, someone = f"/users/{id_of(desk, ann)}", Visitor(app).sign_in(ann)
    response = admin.send(f"{here}/password")
    made = MADE.search(response.text)
    assert made and response.headers["Cache-Control"] == "no-store"

    assert someone.open("/").status_code == 302, "the old session is over"
    assert Visitor(app).send("/login", email=ann, password=PASSWORD).status_code == 200, "the old password is no good"
    Visitor(app).sign_in(ann, made[1]).get("/")
    elsewhere = [admin.get(here + "/"), str(response.headers), caplog.text, str(desk.rows("SELECT * FROM events"))]
    assert all(made[1] not in one for one in elsewhere)


def test_all_sessions_of_a_person_end(app: Flask, admin: Visitor, ann: str, desk: DeskDriver) -> None:
    sessions = [Visitor(app).sign_in(ann) for _ in range(2)]
    assert "signed out everywhere" in admin.post(f"/users/{id_of(desk, ann)}/sessions")

    assert [one.open("/").status_code for one in sessions] == [302, 302]
    sessions[0].sign_in(ann).get("/")
    assert events(desk, ann) == ["All sessions ended."]


def test_the_last_admin_stays(admin: Visitor, desk: DeskDriver) -> None:
    me = id_of(desk, "admin@desk.example")
    admin.post(f"/users/{id_of(desk, 'admin@example.com')}/deactivate")

    page = admin.get(f"/users/{me}/")
    assert "last admin who can sign in" in page and "/deactivate" not in page
    for act, fields in (("deactivate", {}), ("role", {"role": "viewer"}), ("role", {"role": "none"})):
        assert "last admin" in admin.post(f"/users/{me}/{act}", sure="1", **fields)
    admin.get("/users/")


def test_admins_who_give_themselves_up_are_asked_first(app: Flask, admin: Visitor, desk: DeskDriver) -> None:
    me = id_of(desk, "admin@desk.example")
    for act, fields in (("deactivate", {}), ("role", {"role": "viewer"}), ("password", {}), ("sessions", {})):
        response = admin.send(f"/users/{me}/{act}", **fields)
        assert response.status_code == 200 and "This is yourself" in response.text, act
    admin.get("/users/")

    admin.post(f"/users/{me}/role", role="viewer", sure="1")
    assert "This is for admins" in admin.get("/users/", 403)


def test_of_two_admins_who_remove_each_other_one_is_left(app: Flask, desk: DeskDriver) -> None:
    for round_ in range(5):
        make_person("admin", f"a{round_}")
        make_person("admin", f"b{round_}")
        pair = [id_of(desk, f"{letter}{round_}@desk.example") for letter in "ab"]
        desk.execute("UPDATE users SET active = id = ANY(:pair)", pair=pair)
        start = Barrier(2)

        def remove(user_id: int, start: Barrier = start) -> bool:
            with app.app_context():
                start.wait()
                try:
                    staff.deactivate(user_id, actor="the other")
                except Refused:
                    return False
                return True

        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(remove, pair)) == [False, True]


def test_a_person_is_made_once_by_two_at_once(app: Flask, desk: DeskDriver) -> None:
    make_person("admin")
    start = Barrier(2)

    def add(_: int) -> bool:
        with app.app_context():
            start.wait()
            try:
                staff.add("twin", RoleName.VIEWER, "", actor="t")
            except Refused:
                return False
            return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(add, range(2))) == [False, True]
    assert len(desk.rows("SELECT 1 FROM users WHERE email = 'twin'")) == 1


def test_there_is_nothing_to_do_about_nobody(admin: Visitor) -> None:
    for path in ("", "deactivate", "password", "sessions", "role?role=viewer"):
        assert "no person 999" in admin.get(f"/users/999/{path}", 404)
    for act in ("deactivate", "password", "sessions", "activate", "unlock"):
        assert admin.send(f"/users/999/{act}").status_code == 404, act
    for verb in (staff.deactivate, staff.activate, staff.unlock, staff.end_sessions, staff.new_password):
        with pytest.raises(NotFound):
            verb(999, actor="t")


def test_the_page_of_a_person_tells_what_happened(
    app: Flask, admin: Visitor, ann: str, desk: DeskDriver, person: Callable[[str | None], Visitor]
) -> None:
    Visitor(app).send("/login", email=ann, password="wrong")
    admin.post(f"/users/{id_of(desk, ann)}/role", role="operator")
    page = admin.get(f"/users/{id_of(desk, ann)}/")

    assert "The password was wrong." in page and "not signed in" in page
    assert "Role: operator; before: viewer." in page and "from 127.0.0.1" in page


def test_the_command_line_is_the_way_back_in(app: Flask, desk: DeskDriver) -> None:
    """As docs/dashboard.md says it, word for word."""
    make_person("admin")
    desk.execute("UPDATE users SET active = false")
    page = (Path(__file__).parents[2] / "docs" / "dashboard.md").read_text()
    commands = re.findall(r"flask --app 'webapp:create_app\(\)' (.*)", page)
    assert len(commands) == 4

    password = "a fine long one"
    for command in commands:
        asked = f"{password}\n{password}\n" if "create" in command or "password" in command else None
        result = app.test_cli_runner().invoke(args=command.split(), input=asked)
        assert result.exit_code == 0, (command, result.output)
    Visitor(app).sign_in("ann@example.com", password).get("/users/")
