"""The pictures of the home page, and the tables beside them."""

from __future__ import annotations

import re
from decimal import Decimal
from xml.etree import ElementTree

from support.desk import DeskDriver, documents
from support.sandbox import Sandbox
from support.visitor import Visitor

from webapp import db, hearts
from webapp.admin import charts
from webapp.admin.bars import stacked_bars
from webapp.db import utcnow

SVG = "{http://www.w3.org/2000/svg}"


def spend(*, sandbox: bool = False) -> charts.Spend:
    with db.transaction() as tx:
        return charts.spend(tx, sandbox=sandbox)


def bars(svg: str) -> list[list[float]]:
    """The values of each series, as the picture names them."""
    series = [one for one in ElementTree.fromstring(svg).iter(f"{SVG}g") if "serie-" in one.get("class", "")]
    return [
        [
            float(value.text.strip("$").replace(",", ""))
            for value in one.iter(f"{SVG}desc")
            if value.get("class") == "value"
        ]
        for one in series
        if any(True for _ in one.iter(f"{SVG}desc"))
    ]


def test_each_day_of_a_month_is_there_once_and_the_sums_are_those_of_the_ledger(desk: DeskDriver) -> None:
    run_id = desk.run(documents(8))
    desk.execute("UPDATE ledger_tallies SET day = day - 3")
    desk.run(documents(4))

    found = spend()

    assert [day.day for day in found.days] == sorted({day.day for day in found.days})
    assert len(found.days) == charts.DAYS and found.days[-1].day == utcnow().date()
    cost, sync = desk.rows("SELECT sum(cost_usd), sum(sync_cost_usd) FROM ledger_lines")[0]
    assert (found.spent, found.saved, found.answers) == (cost, sync - cost, 12)
    assert [day.lines for day in found.billed] == [4, 8], run_id


def test_a_second_paid_answer_is_spent_and_saves_nothing(desk: DeskDriver) -> None:
    desk.run(documents(2))
    desk.execute("UPDATE ledger_tallies SET cost_usd = 3, sync_cost_usd = 2")

    assert (spend().spent, spend().saved) == (Decimal(3), Decimal(0))


def test_the_sandbox_is_no_spend_and_says_so(desk: DeskDriver, viewer: Visitor) -> None:
    desk.run(documents(3))
    desk.execute("UPDATE accounts SET sandbox = true")

    assert (spend().answers, spend(sandbox=True).answers) == (0, 3)
    assert "Nothing has been billed in the last 30 days" in viewer.get("/")


def test_answers_without_a_price_are_told_beside_the_picture(desk: DeskDriver, viewer: Visitor) -> None:
    desk.run(documents(3))
    desk.execute("UPDATE ledger_tallies SET unpriced = 2")

    assert "2 answers without a known price are not in it" in viewer.get("/")


def test_answers_stand_at_the_hour_they_came_in(desk: DeskDriver, sandbox: Sandbox, viewer: Visitor) -> None:
    sandbox.configure(invalid_share=0.5)
    run_id = desk.run(documents(30))
    counts = desk.summary(run_id)
    desk.execute("UPDATE tallies SET at = at - interval '2 hours'")

    with db.transaction() as tx:
        found = charts.answers(tx)

    assert len(found) == charts.HOURS
    assert [(one.succeeded, one.failed) for one in found if one.succeeded or one.failed] == [
        (counts.succeeded, counts.errored)
    ]
    assert found[-3].succeeded == counts.succeeded
    page = viewer.get("/")
    assert f"{counts.succeeded} answers succeeded and {counts.errored} failed in all" in page
    assert f"{1000 * counts.succeeded // 30 / 10}% succeeded" in page


def test_a_line_that_comes_late_leaves_no_hour_with_less_than_nothing(desk: DeskDriver) -> None:
    desk.run(documents(2))
    desk.execute("UPDATE tallies SET succeeded = 0, missing = -1, at = now() WHERE scope = 'requests'")

    with db.transaction() as tx:
        assert {(one.succeeded, one.failed) for one in charts.answers(tx)} == {(0, 0)}


def test_a_picture_is_an_image_with_the_figures_and_without_a_script(desk: DeskDriver, viewer: Visitor) -> None:
    desk.run(documents(5))
    desk.execute("UPDATE ledger_tallies SET cost_usd = 12.5, sync_cost_usd = 25")

    for address in re.findall(r'(?:src|srcset)="(/charts/[^"]+)"', viewer.get("/")):
        response = viewer.open(address.replace("&amp;", "&"))
        assert (response.status_code, response.mimetype) == (200, "image/svg+xml"), address
        assert "sandbox" in response.headers["Content-Security-Policy"]
        assert "<script" not in response.text
    assert [series[-1] for series in bars(viewer.get("/charts/spend.svg"))] == [12.5, 12.5]
    assert [sum(series) for series in bars(viewer.get("/charts/answers.svg"))] == [5, 0]


def test_an_axis_ends_at_a_round_number_above_the_highest_bar() -> None:
    for highest, ends in (
        (0, "1"),
        (0.013, "0.02"),
        (3, "4"),
        (5, "6"),
        (7.1, "8"),
        (99, "100"),
        (100, "100"),
        (101, "200"),
    ):
        svg = stacked_bars("x", ["a"], {"one": [highest]}, every=1, written=lambda value: f"{value:g}")
        axis = ElementTree.fromstring(svg).find(f".//{SVG}g[@class='axis y always_show']")
        assert axis is not None
        assert [text.text for text in axis.iter(f"{SVG}text")][-1] == ends


def test_the_parts_are_told_by_their_own_heartbeats(desk: DeskDriver, viewer: Visitor) -> None:
    desk.run(documents(1))
    page = viewer.get("/")
    assert "none seen for a minute" in page and "not seen for a minute" in page
    hearts.beat("worker one", "worker")
    hearts.beat("worker two", "worker")
    hearts.beat("clock one", "clock")
    page = re.sub(r"<[^>]+>", "", viewer.get("/"))
    assert "Workers 2, seen just now" in page and "Clock seen just now" in page
