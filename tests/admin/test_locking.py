"""Wrong passwords: how many, what is locked then and for whom, and what is written down about it."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask
from support.desk import DeskDriver, make_settings
from support.people import PASSWORD, make_person
from support.visitor import Visitor
from werkzeug.test import TestResponse

from webapp import create_app, db
from webapp.admin import tries
from webapp.errors import Refused
from webapp.local import Services

WRONG = "The name or the password is wrong."
TOO_MANY = "Too many wrong tries."
STRANGER = "stranger@desk.example"


@pytest.fixture
def app(database_url: str, services: Services) -> Iterator[Flask]:
    app = create_app(make_settings(database_url, services, sandbox_url=None))
    with app.app_context():
        yield app
        db.db.session.remove()
        db.db.engine.dispose()


@pytest.fixture
def ann(app: Flask) -> str:
    return make_person("viewer", "ann")


def attempt(app: Flask, name: str, password: str = "wrong", address: str = "192.0.2.1") -> TestResponse:
    visitor = Visitor(app)
    token = visitor.token()
    return visitor.open(
        "/login",
        "POST",
        data={"csrf_token": token, "email": name, "password": password},
        environ_overrides={"REMOTE_ADDR": address},
    )


def use_up(name: str, address: str, count: int) -> None:
    """As many wrong tries, without the time that looking at a password takes."""
    for _ in range(count):
        tries.charge(name, address)


def locked(name: str, address: str) -> bool:
    """Whether a try would be refused; the try counts."""
    try:
        tries.charge(name, address)
    except Refused:
        return True
    return False


def later(desk: DeskDriver, minutes: int) -> None:
    """Let the time pass for all counts."""
    desk.execute("UPDATE sign_in_tries SET tried_at = tried_at - make_interval(mins => :m), "
                 "succeeded_at = succeeded_at - make_interval(mins => :m)", m=minutes)  # fmt: skip


def failures(desk: DeskDriver) -> list[tuple[str | None, str, str]]:
    rows = desk.rows("SELECT target, address, reason FROM events WHERE kind = 'sign_in_failed' ORDER BY id")
    return [(row.target, row.address, row.reason) for row in rows]


@pytest.mark.parametrize("known", [True, False])
def test_ten_wrong_tries_lock_a_name_for_that_address(app: Flask, ann: str, desk: DeskDriver, known: bool) -> None:
    name = ann if known else STRANGER
    for _ in range(10):
        response = attempt(app, name)
        assert WRONG in response.text and TOO_MANY not in response.text

    for password in ("wrong", PASSWORD):
        response = attempt(app, name, password)
        assert response.status_code == 200 and "Too many wrong tries. Wait 15 minutes" in response.text
    assert locked(name, "192.0.2.1") and not locked(name, "192.0.2.2")


def test_a_lock_ends_by_itself_and_the_next_is_longer(app: Flask, ann: str, desk: DeskDriver) -> None:
    for minutes in (15, 30, 60, 60):
        use_up(ann, "192.0.2.1", 10)
        later(desk, minutes - 1)
        with pytest.raises(Refused, match="Wait 1 minute,"):
            tries.charge(ann, "192.0.2.1")
        later(desk, 1)
    assert attempt(app, ann, PASSWORD).status_code == 302


def test_the_right_password_begins_the_count_anew(app: Flask, ann: str) -> None:
    for _ in range(3):
        use_up(ann, "192.0.2.1", 9)
        assert attempt(app, ann, PASSWORD).status_code == 302


def test_failures_of_yesterday_are_forgotten(app: Flask, ann: str, desk: DeskDriver) -> None:
    use_up(ann, "192.0.2.1", 9)
    later(desk, 24 * 60 + 1)
    use_up(ann, "192.0.2.1", 9)
    assert not locked(ann, "192.0.2.1")


def test_many_tries_at_once_are_no_more_than_one_after_the_other(app: Flask, ann: str, desk: DeskDriver) -> None:
    def one(_: int) -> bool:
        with app.app_context():
            return locked(ann, "192.0.2.1")

    with ThreadPoolExecutor(8) as pool:
        assert sum(not refused for refused in pool.map(one, range(40))) == 10


def test_an_address_that_tries_many_names_is_locked(app: Flask, ann: str) -> None:
    for number in range(50):
        tries.charge(f"name-{number}", "192.0.2.1")

    assert TOO_MANY in attempt(app, ann, PASSWORD).text
    assert attempt(app, ann, PASSWORD, "192.0.2.2").status_code == 302


def test_an_ipv6_address_counts_as_its_network(app: Flask) -> None:
    for number in range(50):
        tries.charge(f"name-{number}", f"2001:db8:1:2:{number:x}::1")

    assert locked("another", "2001:db8:1:2:ffff::1") and not locked("another", "2001:db8:1:3::1")
    assert tries._place("::ffff:192.0.2.1") == tries._place("192.0.2.1")


def test_a_name_that_is_tried_from_everywhere_is_locked_where_it_is_new(app: Flask, ann: str, desk: DeskDriver) -> None:
    assert attempt(app, ann, PASSWORD, "192.0.2.99").status_code == 302
    for number in range(100):
        tries.charge(ann, f"198.51.100.{number % 20}")

    assert TOO_MANY in attempt(app, ann, PASSWORD, "203.0.113.5").text
    # Where ann signed in before she still does: nobody far away can keep her out.
    assert attempt(app, ann, PASSWORD, "192.0.2.99").status_code == 302
    later(desk, 16)
    assert attempt(app, ann, PASSWORD, "203.0.113.5").status_code == 302


def test_whoever_guesses_in_the_office_locks_nobody_out_of_it(app: Flask, ann: str, desk: DeskDriver) -> None:
    assert attempt(app, ann, PASSWORD).status_code == 302
    for number in range(50):
        tries.charge(f"name-{number}", "192.0.2.1")
    assert locked("another", "192.0.2.1")

    assert attempt(app, ann, PASSWORD).status_code == 302
    later(desk, 31 * 24 * 60)
    for number in range(50):
        tries.charge(f"name-{number}", "192.0.2.1")
    assert TOO_MANY in attempt(app, ann, PASSWORD).text, "after 30 days it is new there"


def test_an_admin_unlocks(app: Flask, ann: str, desk: DeskDriver) -> None:
    admin = Visitor(app).sign_in(make_person("admin"))
    here = f"/users/{desk.scalar('SELECT id FROM users WHERE email = :n', n=ann)}/"
    assert "locked" not in admin.get("/users/")
    use_up(ann, "192.0.2.1", 10)
    use_up(ann, "192.0.2.2", 10)

    assert ">locked<" in admin.get("/users/") and "for 15 minutes yet" in admin.get(here)
    assert "is locked nowhere" in admin.post(f"{here}unlock")
    assert ">locked<" not in admin.get("/users/")
    assert not locked(ann, "192.0.2.1") and not locked(ann, "192.0.2.2")
    assert "Unlocked." in admin.get(here)


def test_what_was_typed_is_written_nowhere(app: Flask, ann: str, desk: DeskDriver) -> None:
    attempt(app, "hunter2hunter2", "whatever-password", "192.0.2.7")
    attempt(app, ann, "another-password", "192.0.2.8")

    assert failures(desk) == [
        (None, "192.0.2.7", "There is nobody of that name."),
        (ann, "192.0.2.8", "The password was wrong."),
    ]
    for table in ("events", "sign_in_tries", "users"):
        rows = str(desk.rows(f"SELECT row_to_json(t)::text FROM {table} t"))
        for secret in ("hunter2", "whatever-password", "another-password"):
            assert secret not in rows, table


def test_the_try_that_locks_says_so_and_locked_tries_say_nothing(app: Flask, ann: str, desk: DeskDriver) -> None:
    use_up(ann, "192.0.2.1", 9)
    for _ in range(5):
        attempt(app, ann)

    ((target, _, reason),) = failures(desk)
    assert target == ann and "That were 10 failures" in reason and "from there is locked" in reason


def test_a_deactivated_person_is_told_no_more_than_others(app: Flask, ann: str, desk: DeskDriver) -> None:
    desk.execute("UPDATE users SET active = false WHERE email = :ann", ann=ann)
    wrong, right = attempt(app, ann), attempt(app, ann, PASSWORD)

    assert WRONG in wrong.text and WRONG in right.text
    assert failures(desk)[1][2] == "The password was right; the person is deactivated."


def test_names_that_exist_take_as_long_as_those_that_do_not(app: Flask, ann: str) -> None:
    """Argon2 runs either way; without it, one of the two would be ten times as fast."""

    def seconds(name: str, number: int) -> float:
        visitor = Visitor(app)
        token = visitor.token()
        began = time.perf_counter()
        visitor.open(
            "/login",
            "POST",
            data={"csrf_token": token, "email": name, "password": "wrong"},
            environ_overrides={"REMOTE_ADDR": f"192.0.2.{number}"},
        )
        return time.perf_counter() - began

    known = statistics.median(seconds(ann, number) for number in range(9))
    unknown = statistics.median(seconds(STRANGER, number) for number in range(9))
    assert 0.5 < known / unknown < 2, (known, unknown)


def test_counts_that_mean_nothing_any_more_are_taken_away(app: Flask, ann: str, desk: DeskDriver) -> None:
    assert attempt(app, ann, PASSWORD, "192.0.2.50").status_code == 302
    for number in range(30):
        tries.charge(f"name-{number}", f"192.0.2.{number}")
    later(desk, 2 * 24 * 60)
    attempt(app, "one more", "wrong", "192.0.2.99")

    kept = desk.rows("SELECT scope FROM sign_in_tries WHERE tried_at < now() - interval '1 day'")
    assert [row.scope for row in kept] == ["pair"], "that of ann, who is known there"


def test_a_sign_in_is_an_event_with_its_address(app: Flask, ann: str, desk: DeskDriver) -> None:
    visitor = Visitor(app).sign_in(ann)
    visitor.send("/logout")

    rows = desk.rows("SELECT kind, actor, target_kind, target, address FROM events ORDER BY id")
    assert [tuple(row) for row in rows] == [
        ("sign_in", ann, "person", ann, "127.0.0.1"),
        ("sign_out", ann, "person", ann, "127.0.0.1"),
    ]
    assert desk.scalar("SELECT signed_in_at FROM users WHERE email = :ann", ann=ann) is not None


def test_a_password_of_another_strength_is_hashed_anew_at_signing_in(app: Flask, ann: str, desk: DeskDriver) -> None:
    """Which writes the person's row within the request, as counting and telling do."""
    from passlib.hash import argon2

    weak = argon2.using(rounds=1, memory_cost=64, parallelism=1).hash(PASSWORD)
    desk.execute("UPDATE users SET password = :weak WHERE email = :ann", weak=weak, ann=ann)
    assert attempt(app, ann, PASSWORD).status_code == 302
    assert desk.scalar("SELECT password FROM users WHERE email = :ann", ann=ann) != weak


@pytest.mark.parametrize("proxies", [0, 1, 2])
def test_an_address_is_taken_from_as_many_proxies_as_are_trusted(
    database_url: str, services: Services, proxies: int
) -> None:
    settings = make_settings(database_url, services, sandbox_url=None, BATCHDESK_TRUSTED_PROXIES=str(proxies))
    app = create_app(settings)
    with app.app_context():
        name = make_person("viewer")
        visitor = Visitor(app)
        forwarded = {
            "X-Forwarded-For": "6.6.6.6, 203.0.113.1, 203.0.113.2",
            "X-Forwarded-Proto": "https, https, https",
            "X-Forwarded-Host": "evil.example",
            "Referer": "https://localhost/login",
        }
        page = visitor.open("/login", headers=forwarded)
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page.text)
        assert token
        assert ("Secure" in page.headers["Set-Cookie"]) is (proxies > 0)
        data = {"csrf_token": token[1], "email": name, "password": PASSWORD}
        address = {"REMOTE_ADDR": "10.0.0.1"}
        if proxies:
            visitor.client.set_cookie("session", page.headers["Set-Cookie"].partition("=")[2].partition(";")[0])
        answer = visitor.open("/login", "POST", data=data, headers=forwarded, environ_overrides=address)
        assert answer.status_code == 302 and "evil" not in answer.headers["Location"]
        with db.transaction() as tx:
            seen = db.scalar(tx, "SELECT address FROM events WHERE kind = 'sign_in'")
        assert seen == {0: "10.0.0.1", 1: "203.0.113.2", 2: "203.0.113.1"}[proxies]
        db.db.session.remove()
        db.db.engine.dispose()


def test_an_address_is_that_of_one_request_alone(app: Flask, ann: str, desk: DeskDriver) -> None:
    from webapp.batches import whence

    attempt(app, ann)
    assert whence.address() is None
