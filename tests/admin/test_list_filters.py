"""What lists are narrowed and sorted by, and what they say of how many there are."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from urllib.parse import parse_qs, urlsplit

import pytest
from support.desk import DeskDriver, documents
from support.sandbox import SandboxProcess
from support.visitor import Visitor

from webapp.admin import lists, looking

TODAY = datetime.now(UTC).date()


def ids(page: str, noun: str) -> list[int]:
    """The rows of a list, in its order."""
    return [int(found) for found in re.findall(rf'<a class="title[^"]*" href="/{noun}/(\d+)/"', page)]


def walked(viewer: Visitor, path: str, noun: str, rel: str = "next") -> list[list[int]]:
    """The rows of each page from one on, until none follows."""
    pages = []
    while path:
        page = viewer.get(path)
        pages.append(ids(page, noun))
        found = re.search(rf'rel="{rel}" href="([^"]+)"', page)
        path = unescape(found[1]) if found else ""
    return pages


@pytest.fixture
def four(desk: DeskDriver) -> None:
    """Four runs of 1, 3, 2 and 3 subjects: the second is another task's, the third another person's, from yesterday."""
    for count, task in ((1, "classify"), (3, "summarise"), (2, "classify"), (3, "classify")):
        desk.run(documents(count), task=task)
    desk.execute("UPDATE runs SET owner = 'ann@x_y.example', created_at = now() - interval '1 day' WHERE id = 3")
    desk.execute("UPDATE runs SET state = 'running' WHERE id IN (1, 4)")
    desk.execute("UPDATE datasets SET name = 'Invoices of May' WHERE id = 2")
    desk.execute("UPDATE batches SET created_at = now() - interval '3 days' WHERE run_id = 1")


RUNS = {
    "": [4, 3, 2, 1],
    "owner=ann@x_y.example": [3],
    "dataset=invoices": [2],
    "dataset=4": [4],
    f"from={TODAY}": [4, 2, 1],
    f"to={TODAY - timedelta(days=1)}": [3],
    f"from={TODAY - timedelta(days=1)}&to={TODAY}&task=classify": [4, 3, 1],
    "sort=oldest": [1, 2, 3, 4],
    "sort=subjects": [4, 2, 3, 1],
    "sort=longest": [1, 4],
}


def test_runs_are_filtered_and_sorted(viewer: Visitor, desk: DeskDriver, four: None) -> None:
    for query, expected in RUNS.items():
        page = viewer.get(f"/runs/?{query}")
        assert ids(page, "runs") == expected, query
        assert f">{len(expected)} run{'s' * (len(expected) != 1)}</p>" in page, query


BATCHES = {
    "task=summarise": [2],
    "account=1": [4, 3, 2, 1],
    f"to={TODAY - timedelta(days=3)}": [1],
    f"from={TODAY}&run=3": [3],
    "sort=oldest&task=classify": [1, 3, 4],
    "sort=requests": [4, 2, 3, 1],
    "sort=waiting": [],
}


def test_batches_are_filtered_and_sorted(viewer: Visitor, desk: DeskDriver, four: None) -> None:
    for query, expected in BATCHES.items():
        assert ids(viewer.get(f"/batches/?{query}"), "batches") == expected, query


@pytest.mark.parametrize("sort", ["newest", "oldest", "subjects"])
def test_a_sorted_list_is_walked_through_once_and_back(
    viewer: Visitor, desk: DeskDriver, four: None, monkeypatch: pytest.MonkeyPatch, sort: str
) -> None:
    monkeypatch.setattr(lists, "PER_PAGE", 1)
    there = walked(viewer, f"/runs/?sort={sort}", "runs")
    assert there == [[run_id] for run_id in RUNS["" if sort == "newest" else f"sort={sort}"]]
    assert walked(viewer, f"/runs/?sort={sort}&newer=0", "runs", "prev") == there[::-1]


def test_a_column_says_how_the_list_is_sorted_and_turns_it(viewer: Visitor, desk: DeskDriver, four: None) -> None:
    def heads(path: str) -> dict[str, tuple[str, str]]:
        found = re.findall(r'<th[^>]*aria-sort="(\w+)"><a href="([^"]+)">(\w+)', viewer.get(path))
        return {label: (way, unescape(href)) for way, href, label in found}

    assert heads("/runs/?task=classify") == {
        "Subjects": ("none", "/runs/?task=classify&sort=subjects"),
        "Started": ("descending", "/runs/?task=classify&sort=oldest"),
    }
    assert heads("/runs/?sort=oldest")["Started"] == ("ascending", "/runs/?sort=newest")
    assert heads("/runs/?sort=subjects")["Subjects"][0] == "descending"
    assert heads("/requests/")["Key"] == ("descending", "/requests/?sort=oldest")


def test_requests_oldest_first_are_the_same_the_other_way_round(
    viewer: Visitor, desk: DeskDriver, four: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "PER_PAGE", 4)
    newest = walked(viewer, "/requests/", "requests")
    oldest = walked(viewer, "/requests/?sort=oldest", "requests")
    assert [len(page) for page in oldest] == [4, 4, 1]
    assert [one for page in oldest for one in page] == [one for page in newest for one in page][::-1]
    assert walked(viewer, "/requests/?sort=oldest&task=classify&run=4", "requests") == [sorted(newest[0][:3])]


def test_filters_are_there_after_an_action(operator: Visitor, desk: DeskDriver, four: None) -> None:
    page = operator.get("/runs/?task=classify&sort=oldest&state=running")
    found = re.search(r'href="(/runs/1/cancel\?back=[^"]+)"', page)
    assert found
    back = parse_qs(urlsplit(unescape(found[1])).query)["back"][0]
    answer = operator.send("/runs/1/cancel", back=back)
    gone_to = urlsplit(answer.headers["Location"])
    assert gone_to.path == "/runs/"
    assert parse_qs(gone_to.query) == {"task": ["classify"], "sort": ["oldest"], "state": ["running"]}


def test_days_that_make_no_sense_are_left_out_with_a_sentence(viewer: Visitor, desk: DeskDriver, four: None) -> None:
    for query in ("from=yesterday", "to=2026-13-01", "from=0001-01-01", "to=9999-12-31", "from=2026-11-30T10:00"):
        page = viewer.get(f"/runs/?{query}")
        assert "it is a day such as" in page and ids(page, "runs") == [4, 3, 2, 1], query
    assert "nothing lies between them" in viewer.get("/requests/?from=2026-11-30&to=2026-11-29")


# -- failures ------------------------------------------------------------------------------------------------------


@pytest.fixture
def failed(desk: DeskDriver, sandbox: SandboxProcess) -> None:
    """Run 1 with failures of two causes that begin alike, run 2 with one of another."""
    sandbox.configure(invalid_share=0.6)
    desk.run(documents(30))
    desk.run(documents(10))
    sandbox.configure(invalid_share=0)
    for table, column, ident in (("items", "error", "id"), ("results", "error_message", "request_id")):
        desk.execute(
            f"UPDATE {table} SET {column} = 'The cause' || CASE WHEN {ident} % 2 = 0 THEN ' 100% of_it' ELSE '' END "
            f"WHERE {column} IS NOT NULL"
        )


def test_each_cause_of_a_run_leads_to_as_many_requests(viewer: Visitor, desk: DeskDriver, failed: None) -> None:
    page = viewer.get("/runs/1/")
    links = re.findall(r'class="num">(\d+)</td>.*?<a href="(/requests/\?[^"]*cause=[^"]*)">', page, re.DOTALL)
    assert len(links) == 2
    for count, link in links:
        listed = viewer.get(unescape(link))
        assert len(ids(listed, "requests")) == int(count)
        assert 'name="cause" value="The cause' in listed, "it is one of the filters, and stays"


def test_words_in_an_error_find_it_in_any_case(viewer: Visitor, desk: DeskDriver, failed: None) -> None:
    errored = [row.id for row in desk.rows("SELECT id FROM requests WHERE state = 'errored' ORDER BY id DESC")]
    assert ids(viewer.get("/requests/?error=the+CAUSE"), "requests") == errored
    with_sign = [one for one in errored if one % 2 == 0]
    assert ids(viewer.get("/requests/?error=100%25"), "requests") == with_sign
    assert ids(viewer.get("/requests/?error=_of"), "requests") == []
    mine = desk.rows("SELECT r.id FROM requests r JOIN batches b ON b.id = r.batch_id WHERE b.run_id = 2")
    only = {row.id for row in mine}
    for query in ("error=cause&run=2", "error=cause&run=2&class=fix", "error=cause&run=2&state=errored"):
        assert ids(viewer.get(f"/requests/?{query}"), "requests") == [one for one in errored if one in only], query


def test_causes_beyond_what_is_looked_at_are_said_to_be_there(
    viewer: Visitor, desk: DeskDriver, failed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "There are more failures" not in viewer.get("/runs/1/")
    monkeypatch.setattr("webapp.batches.causes.MOST_READ", 2)
    for path in ("/runs/1/", "/batches/1/"):
        assert "these are of the latest 2." in viewer.get(path), path


def test_a_list_says_how_many_there_are_or_that_there_are_more(viewer: Visitor, desk: DeskDriver, failed: None) -> None:
    assert ">40 requests</p>" in viewer.get("/requests/?task=classify")
    errored = desk.scalar("SELECT count(*) FROM requests r WHERE state = 'errored' AND batch_id = 1")
    assert f">{errored} request" in viewer.get("/requests/?batch=1&state=errored")
    fix = desk.scalar("SELECT count(*) FROM requests WHERE failure_class = 'fix'")
    assert f">{fix} requests</p>" in viewer.get("/requests/?class=fix"), "one page holds them all"
    desk.run(documents(60))
    assert ">more than 50 outputs</p>" in viewer.get("/outputs/")


# -- outputs -------------------------------------------------------------------------------------------------------


def test_outputs_are_listed_with_their_beginnings_and_found_by_their_words(
    viewer: Visitor, desk: DeskDriver, sandbox: SandboxProcess
) -> None:
    desk.run(documents(6))
    desk.run(documents(3), task="summarise")
    desk.execute("UPDATE outputs SET value = NULL, state = 'invalid', reason = 'No use' WHERE request_id = 2")
    desk.execute(
        "UPDATE outputs SET value = CAST(:value AS json) WHERE request_id = 5",
        value='{"label":"<script>alert(1)</script> 50% Ünique ' + "x" * 400 + '"}',
    )
    page = viewer.get("/outputs/")
    assert ids(page, "requests") == [9, 8, 7, 6, 5, 4, 3, 2, 1]
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page and "x …" in page and "No use" in page
    cases = {
        "text=üniquE": [5],
        "text=50%25": [5],
        "text=_": [],
        "state=invalid": [2],
        "state=ok&run=1": [6, 5, 4, 3, 1],
        "task=summarise": [9, 8, 7],
        "batch=1&sort=oldest": [1, 2, 3, 4, 5, 6],
        "q=doc-1": [8, 2],
        "q=doc-1&state=ok": [8],
        f"to={TODAY - timedelta(days=1)}": [],
        f"from={TODAY}&run=2": [9, 8, 7],
    }
    for query, expected in cases.items():
        assert ids(viewer.get(f"/outputs/?{query}"), "requests") == expected, query
    assert "No output fits" in viewer.get("/outputs/?text=nothing")
    assert "It was left out." in viewer.get("/outputs/?state=pending")


def test_a_search_in_outputs_stops_after_its_window_and_goes_on_when_asked(
    viewer: Visitor, desk: DeskDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.run(documents(30))
    desk.execute("UPDATE outputs SET value = CAST('\"needle\"' AS json) WHERE request_id IN (3, 29)")
    monkeypatch.setattr(looking, "WINDOW", 20)  # two rows are read for each
    path, found = "/outputs/?text=needle", []
    for _ in range(3):
        page = viewer.get(path)
        found.append(ids(page, "requests"))
        assert "The look ended after 10 outputs" in page
        further = re.search(r'<a href="([^"]+)">Look further</a>', page)
        assert further
        path = unescape(further[1])
    page = viewer.get(path)
    assert [*found, ids(page, "requests")] == [[29], [], [3], []] and "Look further" not in page


def test_lists_without_rows_say_what_to_do_next(viewer: Visitor) -> None:
    for path in ("/runs/", "/batches/", "/requests/", "/outputs/"):
        assert "batchdesk run classify" in viewer.get(path), path
