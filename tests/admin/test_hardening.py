"""What strangers put into addresses, forms, headers and cookies: ids, filters, where to go next, methods, sessions."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.desk import DeskDriver, documents, make_settings
from support.people import PASSWORD
from support.visitor import Visitor

from webapp import create_app, db
from webapp.local import Services

_ID = re.compile(r"<row:\w+>")
_OTHER = re.compile(r"<any\(([^,)]+)[^)]*\):\w+>")
NO_IDS = (
    "999",
    "0",
    "-1",
    "+1",
    "01",
    "1.0",
    "1e3",
    "abc",
    "1,2",
    "%31%00",
    "٣",
    "9" * 18,
    "9" * 19,
    "9" * 4000,
    "..",
    "1%2f2",
    "",
)
LISTS = ("/", "/runs/", "/batches/", "/requests/", "/outputs/", "/events/", "/users/", "/strays/", "/live", "/runs/1/",
         "/batches/1/", "/requests/1/", "/events/export.jsonl")  # fmt: skip
FILTERS = ("q", "who", "state", "class", "task", "kind", "run", "batch", "from", "to", "older", "newer", "before",
           "role", "account", "cause", "dataset", "error", "owner", "sort", "text",
           "stamp_run_id", "stamp_batch_id", "back", "api_id")  # fmt: skip
VALUES = st.one_of(
    st.text(max_size=40),
    st.integers(-(10**30), 10**30).map(str),
    st.dates().map(str),
    st.sampled_from(["", "0", "errored", "running", "fix", "done", "move", "9" * 18, "9" * 19, "\0", "%", "_", "'", '"',
                     "\\", "1 OR 1=1", "not signed in", "9999-12-31", "0001-01-01", "10000-01-01", "\udcff",
                     "x" * 600]),
)  # fmt: skip


@pytest.fixture
def run_id(desk: DeskDriver) -> int:
    return desk.run(documents(3))


def test_ids_that_do_not_exist_or_parse_are_not_found(app: Flask, admin: Visitor, run_id: int) -> None:
    walked = 0
    for rule in app.url_map.iter_rules():
        if "<row:" not in rule.rule:
            continue
        for method in {"GET", "POST"} & set(rule.methods or ()):
            for given_id in NO_IDS:
                if given_id == "" and method == "GET":
                    continue  # the list itself, or a redirect to it
                path = _OTHER.sub(r"\1", _ID.sub(given_id, rule.rule))
                data = {"csrf_token": token(admin), "sure": "1", "role": "viewer"} if method == "POST" else None
                query = "?role=viewer" if path.endswith("/role") else ""
                with admin.open(path + query, method, data=data) as response:
                    status, leads_to = response.status_code, response.headers.get("Location", "")
                    assert "Traceback" not in response.text
                if status == 303:  # nothing was ticked, so that nothing was looked for yet
                    status = admin.open(leads_to).status_code
                # Without an id it is another page's address, which a slash too many leads to.
                assert status in (404, 405) or (status == 308 and not given_id), (method, path[:80], status)
                walked += 1
    assert walked > 400


_tokens: dict[int, str] = {}


def token(visitor: Visitor) -> str:
    """The token of a visitor's forms, asked for once."""
    return _tokens.setdefault(id(visitor), visitor.token())


def test_no_filter_breaks_a_list(admin: Visitor, run_id: int) -> None:
    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(LISTS), st.lists(st.tuples(st.sampled_from(FILTERS), VALUES), max_size=5))
    def look(path: str, filters: list[tuple[str, str]]) -> None:
        query = urlencode(filters, errors="surrogatepass")
        with admin.open(f"{path}?{query}") as response:
            allowed = (200, 400) if "export" in path else (200,)
            assert response.status_code in allowed, (path, filters, response.status_code)

    look()


def test_no_query_string_at_all_breaks_a_list(admin: Visitor, run_id: int) -> None:
    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.sampled_from(LISTS),
        st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#"), max_size=80),
    )
    def look(path: str, query: str) -> None:
        with admin.open(f"{path}?{query}") as response:
            assert response.status_code in (200, 400), (path, query)

    look()


ELSEWHERE = (
    "https://evil.example/",
    "//evil.example/",
    "///evil.example/",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    " //evil.example",
    "\x00//evil.example",
    "https:evil.example",
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "//localhost@evil.example/",
    "http://localhost.evil.example/",
    "/%2f/evil.example/../..",
    "/a\r\nSet-Cookie: planted=1",
    "/a\r\n\r\n<script>alert(1)</script>",
)


def leads_home(response: Any) -> bool:
    """Whether an answer leads nowhere but to a page of ours, and holds no header of somebody else's."""
    location = response.headers.get("Location", "/")
    whole = urlsplit(urljoin("http://localhost/login", location))
    ours = (whole.scheme, whole.netloc) == ("http", "localhost") and not location.startswith(("//", "/\\", "\\"))
    return ours and location.isprintable() and "planted" not in str(response.headers.getlist("Set-Cookie"))


@pytest.mark.parametrize("target", ELSEWHERE)
def test_nothing_leads_elsewhere(app: Flask, operator: Visitor, target: str) -> None:
    query = urlencode({"next": target, "back": target})
    stranger = Visitor(app)
    answers = [
        stranger.send("/login", email="operator@desk.example", password=PASSWORD, next=target),
        Visitor(app).open(f"/login?{query}", "POST", data={"csrf_token": "x"}),
        operator.open(f"/login?{query}"),
        operator.send("/strays/look", back=target),
        operator.send(f"/strays/look?{query}"),
        operator.send("/account/password", password="x", next=target),
        stranger.send("/logout", next=target),
        operator.send(f"/logout?{query}"),
    ]
    assert [(answer.status_code, answer.headers.get("Location")) for answer in answers if not leads_home(answer)] == []
    assert answers[0].status_code in (200, 302) and answers[3].status_code == 303
    page = operator.open(f"/login?{query}").text
    assert "evil.example" not in re.sub(r'value="[^"]*"', "", page)


def test_signing_in_begins_a_session_that_nobody_else_knows(app: Flask, operator: Visitor) -> None:
    """Session fixation: what stood in the cookie before, and its token, count no more."""
    victim = Visitor(app)
    planted_token = victim.token()
    planted = victim.client.get_cookie("session")
    assert planted is not None
    victim.sign_in("operator@desk.example")
    after = victim.client.get_cookie("session")
    assert after is not None and after.value != planted.value

    attacker = Visitor(app)
    attacker.client.set_cookie("session", planted.value)
    assert attacker.open("/").status_code == 302
    response = victim.open("/strays/look", "POST", data={"csrf_token": planted_token})
    assert response.status_code == 400


def test_a_cookie_that_was_kept_is_no_good_after_the_password_is_another(app: Flask, operator: Visitor) -> None:
    kept = operator.client.get_cookie("session")
    assert kept is not None
    fields = {"password": PASSWORD, "new_password": "another long one", "new_password_confirm": "another long one"}
    assert operator.send("/account/password", **fields).status_code == 302

    thief = Visitor(app)
    thief.client.set_cookie("session", kept.value)
    assert thief.open("/").status_code == 302
    operator.get("/")


@pytest.mark.parametrize(
    "cookie", ["", "x", "x.y.z", "eyJfdXNlcl9pZCI6IjEifQ.aaaaaa.bbbbbbbbbbbbbbbb", "\x7f" * 3, "a" * 3000]
)
def test_a_cookie_that_we_did_not_sign_is_nobody(app: Flask, operator: Visitor, cookie: str) -> None:
    stranger = Visitor(app)
    for path in ("/", "/login"):
        response = stranger.open(path, headers={"Cookie": f"session={cookie}; remember_token=1|abc"})
        assert response.status_code == (302 if path == "/" else 200)


def test_nobody_is_remembered_beyond_the_browser(app: Flask, operator: Visitor) -> None:
    response = Visitor(app).send("/login", email="operator@desk.example", password=PASSWORD, remember="y")
    cookies = response.headers.getlist("Set-Cookie")

    assert response.status_code == 302 and not [
        one for one in cookies if one.startswith("remember_token=") and "1970" not in one
    ]
    assert not [one for one in cookies if one.startswith("session=") and "Expires" in one]


def test_there_is_no_way_in_but_the_session(app: Flask, operator: Visitor) -> None:
    """Flask-Security gives a token to whoever asks for one with the password; it would outlive signing out."""
    stranger = Visitor(app)
    headers = {"Accept": "application/json", "X-CSRFToken": stranger.token()}
    fields = {"email": "operator@desk.example", "password": PASSWORD}
    answer = stranger.open("/login?include_auth_token", "POST", json=fields, headers=headers)
    assert answer.status_code == 200
    given_token = answer.get_json()["response"]["user"]["authentication_token"]

    for options in ({"headers": {"Authentication-Token": given_token}}, {"query_string": {"auth_token": given_token}}):
        assert Visitor(app).open("/", **options).status_code == 302
        assert Visitor(app).open("/runs/", "POST", **options).status_code in (400, 401)


def test_over_tls_the_cookie_goes_over_tls_alone(app: Flask, visitor: Visitor) -> None:
    for base, secure in (("http://localhost", False), ("https://localhost", True)):
        cookie = visitor.open("/login", base_url=base).headers["Set-Cookie"]
        assert ("; Secure" in cookie) is secure
        assert "; HttpOnly" in cookie and "; SameSite=Lax" in cookie and "Domain" not in cookie


def test_what_a_host_header_says_leads_nowhere(app: Flask, operator: Visitor) -> None:
    for path in ("/", "/login", "/users/", "/nowhere"):
        response = Visitor(app).open(path, headers={"Host": "evil.example"})
        assert leads_home(response), path
        assert "evil.example" not in response.text


def test_head_is_a_get_without_its_page(app: Flask, operator: Visitor, run_id: int) -> None:
    for path in ("/", "/runs/", "/runs/1/", "/runs/1/cancel", "/events/", "/requests/1/subject.json", "/nowhere"):
        whole, head = operator.open(path), operator.open(path, "HEAD")
        assert (head.status_code, head.get_data()) == (whole.status_code, b""), path
        assert head.headers["Content-Type"] == whole.headers["Content-Type"]
    assert Visitor(app).open("/runs/1/cancel", "HEAD").status_code == 302


def test_options_tell_nothing_but_methods(app: Flask, operator: Visitor, run_id: int) -> None:
    response = operator.open("/runs/1/cancel", "OPTIONS")
    assert response.get_data() == b"" and {"GET", "POST"} <= set(response.headers["Allow"].split(", "))
    assert not [name for name, _ in response.headers if name.lower().startswith("access-control")]
    assert Visitor(app).open("/runs/1/cancel", "OPTIONS").status_code == 302


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND", "GETT"])
def test_other_methods_do_nothing(operator: Visitor, run_id: int, desk: DeskDriver, method: str) -> None:
    before = desk.scalar("SELECT count(*) FROM events")
    assert operator.open("/runs/1/cancel", method).status_code in (400, 403, 405)
    assert desk.scalar("SELECT count(*) FROM events") == before


def test_a_method_cannot_be_put_in_place_of_another(operator: Visitor, run_id: int, desk: DeskDriver) -> None:
    headers = {"X-HTTP-Method-Override": "POST", "X-Method-Override": "POST"}
    operator.open("/runs/1/cancel?_method=POST&csrf_token=" + operator.token(), headers=headers)
    assert desk.scalar("SELECT cancel_wanted_at FROM runs") is None


def test_a_form_that_is_too_large_is_refused(operator: Visitor) -> None:
    response = operator.send("/strays/look", back="/" + "x" * 1_100_000)
    assert response.status_code == 413


def test_a_role_that_is_taken_away_counts_for_sessions_that_are_open(
    app: Flask, operator: Visitor, run_id: int, desk: DeskDriver
) -> None:
    desk.execute("DELETE FROM roles_users WHERE user_id = (SELECT id FROM users WHERE email = 'operator@desk.example')")
    for path in ("/", "/runs/1/", "/live", "/requests/1/subject.json", "/account/", "/events/"):
        assert operator.open(path).status_code == 403, path


def test_a_session_of_another_installation_is_nobodys(database_url: str, services: Services, operator: Visitor) -> None:
    other = create_app(
        make_settings(database_url, services, sandbox_url=None, BATCHDESK_SECRET_KEY="quite another secret")
    )
    cookie = operator.client.get_cookie("session")
    assert cookie is not None
    with other.app_context():
        thief = Visitor(other)
        thief.client.set_cookie("session", cookie.value)
        assert thief.open("/").status_code == 302
        db.db.engine.dispose()
