"""Over an installation that holds something of every kind: what a GET changes, what stands in the headers and the
markup of every page, and what becomes of text that means harm.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from urllib.parse import quote, urlsplit

import pytest
from flask import Flask
from support.desk import DeskDriver
from support.filling import HOSTILE, changed, contents, fill, plant
from support.sandbox import Sandbox
from support.visitor import Visitor
from werkzeug.test import TestResponse

from webapp import db

# Where the ids in addresses come from, by the name that a route gives them.
IDS = {
    "run_id": "SELECT id FROM runs",
    "batch_id": "SELECT id FROM batches",
    "request_id": "SELECT id FROM requests WHERE id % 7 = 0 OR id IN (SELECT request_id FROM former_outputs)",
    "former_id": "SELECT id FROM former_outputs",
    "dataset_id": "SELECT id FROM datasets WHERE id = 1",
    "subject_id": "SELECT id FROM subjects WHERE dataset_id = 1 LIMIT 6",
    "upload_id": "SELECT id FROM uploads",
    "source_name": "SELECT 'files'",
    "user_id": "SELECT id FROM users",
    "schedule_id": "SELECT id FROM schedules",
    "destination_id": "SELECT id FROM destinations",
    "plugin": "SELECT name FROM plugins UNION ALL SELECT 'limits'",
    "install_id": "SELECT id FROM plugin_installs",
    "wish_id": "SELECT id FROM resubmissions",
    "cap_id": "SELECT id FROM caps",
    "price_id": "SELECT id FROM price_overrides",
    "verb": "SELECT unnest(ARRAY['cancel', 'pause'])",
    "number": "SELECT 1",
    "sha256": "SELECT encode(sha256, 'hex') FROM blobs",
}
MOST = 6  # addresses of one route
_PART = re.compile(r"<(?:(\w+)(?:\(([^)]*)\))?:)?(\w+)>")


@pytest.fixture
def filled(app: Flask, desk: DeskDriver, sandbox: Sandbox) -> None:
    fill(desk, sandbox)


def addresses(app: Flask, most: int = MOST) -> Iterator[str]:
    """Addresses of every route that takes a GET, of what is there; at most so many of one."""
    with db.transaction() as tx:
        ids = {name: [str(found) for (found,) in db.rows(tx, statement)] for name, statement in IDS.items()}
    for rule in app.url_map.iter_rules():
        if "GET" not in (rule.methods or ()) or "static" in rule.endpoint:
            continue
        paths = [rule.rule]
        for converter, options, name in _PART.findall(rule.rule):
            values = options.split(",") if converter == "any" else ids.get(name) or ["0" * 64]
            paths = [_PART.sub(value.strip(), path, count=1) for path in paths for value in values]
        yield from paths[:: -(-len(paths) // most)]


class Markup(HTMLParser):
    """What a browser would make of a page: its elements, with all that they say."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    @property
    def shape(self) -> list[str]:
        """Its elements and their attributes' names, without what they say."""
        return [f"{tag} {' '.join(sorted(attrs))}" for tag, attrs in self.elements]


LINKS = ("href", "src", "action", "formaction", "srcdoc", "data")
SCRIPT_ELEMENTS = ("iframe", "object", "embed", "base", "style", "template", "portal")


def faults(response: TestResponse) -> list[str]:
    """What is wrong with the headers and the markup of an answer."""
    headers = response.headers
    policy = headers.get("Content-Security-Policy", "")
    found = []
    if "default-src 'none'" not in policy or "frame-ancestors 'none'" not in policy or "unsafe" in policy:
        found.append(f"policy: {policy}")
    if headers.get("X-Content-Type-Options") != "nosniff" or not headers.get("Cache-Control"):
        found.append("headers")
    if len(headers.getlist("Content-Security-Policy")) != 1:
        found.append("policies")
    if response.mimetype != "text/html":
        return found
    nonce = re.search(r"script-src 'nonce-([\w-]{16,})'", policy)
    for tag, attrs in Markup(response.text).elements:
        if [name for name in attrs if name.startswith("on") or name == "style"]:
            found.append(f"inline: <{tag} {attrs}>")
        if tag in SCRIPT_ELEMENTS:
            found.append(f"element: <{tag}>")
        if tag == "script" and (not nonce or attrs.get("nonce") != nonce[1] or not attrs.get("src")):
            found.append(f"script: {attrs}")
        for name in LINKS:
            parts = urlsplit((attrs.get(name) or "").strip())
            if parts.scheme or parts.netloc:
                found.append(f"leads away: <{tag} {name}={attrs[name]!r}>")
    if tags(response.text, "h1") != 1:
        found.append("headings")
    return found


def tags(page: str, wanted: str) -> int:
    return sum(tag == wanted for tag, _ in Markup(page).elements)


def test_no_get_changes_anything(app: Flask, admin: Visitor, filled: None) -> None:
    walked = list(addresses(app))
    before = contents()
    assert {"events", "users", "sign_in_tries", "strays", "former_outputs"} <= before.keys()
    assert all(before[name][0] for name in ("events", "users", "strays", "former_outputs", "requests"))

    for path in walked:
        for method in ("GET", "HEAD", "OPTIONS"):
            with admin.open(path, method) as response:
                assert response.status_code < 500, path
                response.get_data()
        # A process says that it lives, whatever it is asked for.
        assert [table for table in changed(before, contents()) if table != "processes"] == [], path
    assert len(walked) > 60
    assert admin.open("/").status_code == 200, "a GET has signed out"


def test_every_answer_forbids_what_it_does_not_need(app: Flask, admin: Visitor, visitor: Visitor, filled: None) -> None:
    nonces = []
    for path in [*addresses(app), "/nowhere", "/runs/999/", "/runs/?state=x&older=y", "/static/desk.css"]:
        for who in (admin, visitor):
            for method in ("GET", "POST", "DELETE"):
                with who.open(path, method) as response:
                    assert faults(response) == [], (path, method, response.status_code)
                    nonces += re.findall("nonce-([^']+)", response.headers["Content-Security-Policy"])
    assert len(nonces) > 300 and len(set(nonces)) == len(nonces), "a nonce was used twice"


def test_an_error_of_ours_has_the_policy_too(app: Flask, viewer: Visitor, desk: DeskDriver) -> None:
    desk.execute("ALTER TABLE runs RENAME COLUMN owner TO boss")
    response = viewer.open("/runs/")

    assert response.status_code == 500 and faults(response) == []


@pytest.mark.timeout(300)
def test_text_that_means_harm_stays_text_on_every_page(app: Flask, admin: Visitor, filled: None) -> None:
    """The elements of each page are the same, whatever is planted in the text that it shows."""
    walked = [path for path in addresses(app, 3) if not path.startswith("/login")]
    admin.open("/")  # this process has taken up the plugins that there are, and is not seen at it later
    plant("harmless")
    shapes = {path: Markup(admin.open(path).text).shape for path in walked}
    shown = set()
    for words in HOSTILE:
        plant(words)
        for path in walked:
            with admin.open(path) as response:
                assert response.status_code in (200, 302, 404), (path, words[:40])
                assert faults(response) == [] or response.mimetype != "text/html", (path, words[:40])
                text = response.get_data(as_text=True)
                if response.mimetype != "text/html":
                    continue
            assert Markup(text).shape == shapes[path], (path, words[:40])
            assert "planted=1" not in str(response.headers)
            outside = re.sub(r"<pre.*?</pre>", "", text, flags=re.DOTALL)
            assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", text), (path, words[:40])
            assert not re.search("[\u202a-\u202e\u2066-\u2069]", outside), (path, words[:40])
            assert "1337" not in text or "7 * 191" not in words
            assert len(text) < 600_000, (path, len(text))
            if "planted" in text:
                shown.add(path)
    assert {"/events/", "/users/", "/strays/", "/runs/", "/plugins/", "/"} <= shown, shown


HERE = ("/runs/", "/batches/", "/requests/", "/events/", "/users/")
NAMES = ("q", "who", "state", "class", "task", "kind", "run", "batch", "from", "to", "older", "newer", "role")


def test_text_that_means_harm_stays_text_in_filters(admin: Visitor, filled: None) -> None:
    for words in (*HOSTILE[:-1], "x" * 5_000, "\x00", "\udcff"):
        value = quote(words.encode("utf-8", "surrogatepass"))
        for path in HERE:
            for name in NAMES:
                with admin.open(f"{path}?{name}={value}") as response:
                    assert response.status_code == 200 and faults(response) == [], (path, name, words[:40])
                    assert tags(response.text, "script") == 1 and tags(response.text, "img") == 1


def test_text_that_means_harm_stays_text_where_it_is_said_back(app: Flask, admin: Visitor, filled: None) -> None:
    """In messages after an action, in forms that come back, at the sign-in page, in where to go next."""
    plain = Visitor(app)
    for words in HOSTILE[:-1]:
        pages = [
            admin.send("/users/add", name=words, role="viewer", password="short"),
            admin.send("/users/add", name="somebody", role=words),
            plain.send("/login", email=words, password=words),
            plain.open(f"/login?next={quote(words)}"),
            admin.open(f"/runs/1/cancel?back={quote(words)}"),
            admin.open("/runs/1/resubmit?class=" + quote(words)),
            admin.open("/" + quote(words)),
        ]
        for response in pages:
            assert faults(response) == [], words
            assert tags(response.text, "h1") == 1 and "1337" not in response.text
        response = admin.send("/batches/1/adopt", api_id=words, back="/runs/")
        assert response.headers["Location"] == "/runs/"
        assert faults(admin.open("/runs/")) == []
        response = admin.send(
            "/users/add", name=f"n {words}".replace("\r\n", ""), role="viewer", password="long enough it is"
        )
        if response.status_code == 303:
            assert faults(admin.open(response.headers["Location"])) == [], words
