"""Prices that admins give: how, from when on they count, what they leave alone, and who did it."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest
from support.desk import DeskDriver, documents
from support.visitor import Visitor

from webapp import db
from webapp.money import overrides

HAIKU = "claude-haiku-4-5"
GIVEN = {"model": HAIKU, "since": "2026-11-01", "input": "2", "output": "10", "note": "Our contract."}


def give(admin: Visitor, **fields: str) -> Any:
    return admin.send("/money/prices/new", **(GIVEN | fields))


def costs(desk: DeskDriver) -> list[tuple[str, Decimal]]:
    return [tuple(line) for line in desk.rows("SELECT price, cost_usd FROM ledger_lines ORDER BY id")]


def text(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_a_price_is_looked_at_first_and_then_put_in_force(admin: Visitor, viewer: Visitor) -> None:
    looked = text(give(admin, tokens="1000", times="3").text)
    assert (
        "costs, synchronously and for a million tokens: $2 in, $10 out, $2.5 for 5-minute and $4 for 1-hour" in looked
    )
    assert "Beyond 1,000 tokens of prompt: $6 in, $30 out, $7.5, $12 and $0.6 for the cache" in looked
    assert "Given by admins" not in viewer.get("/money/prices/")

    response = give(admin, tokens="1000", times="3", do="put")
    assert (response.status_code, response.headers["Location"]) == (303, "/money/prices/")
    page = text(viewer.get("/money/prices/"))
    assert "Our contract." in page and "2026-11-01 an admin" in page and "beyond 1,000 tokens" in page
    assert "Give a price" not in page and "Remove" not in page


def test_what_is_stored_from_then_on_costs_that_and_what_was_stays(desk: DeskDriver, admin: Visitor) -> None:
    desk.run(documents(1), task="summarise", model=HAIKU)
    give(admin, do="put")
    desk.run(documents(1), task="summarise", model=HAIKU)
    (before, cost), (after, doubled) = costs(desk)
    assert (before, after) == ("2025-01-01", "override 1")
    assert doubled == 2 * cost > 0  # of the same text and the same answer, at twice each rate
    with db.transaction() as tx:
        assert overrides.book(tx).named(HAIKU, "override 1").input == 2  # type: ignore[union-attr]


def test_a_price_that_is_removed_is_as_if_it_had_never_been(desk: DeskDriver, admin: Visitor) -> None:
    give(admin, do="put")
    asked = admin.get("/money/prices/1/remove?back=/money/prices/?model=haiku")
    assert "Our contract." in asked and "What is in the ledger stays as it is" in asked
    response = admin.send("/money/prices/1/remove", back="/money/prices/?model=haiku")
    assert response.headers["Location"] == "/money/prices/?model=haiku"
    desk.run(documents(1), task="summarise", model=HAIKU)
    assert [price for price, _ in costs(desk)] == ["2025-01-01"]
    assert "removed by" in admin.get("/money/prices/")
    assert admin.open("/money/prices/1/remove").status_code == 404
    assert "is removed already" in admin.get(admin.send("/money/prices/1/remove").headers["Location"])


def test_a_model_without_a_price_gets_one_and_what_was_unpriced_stays_so(desk: DeskDriver, admin: Visitor) -> None:
    desk.run(documents(1), task="summarise", model="claude-fable-5-2")
    give(admin, model="claude-fable-5-2-20261109", do="put")
    desk.run(documents(1), task="summarise", model="claude-fable-5-2")
    (before, unknown), (after, cost) = costs(desk)
    assert (before, unknown, after) == (None, None, "override 1") and cost > 0
    assert "unpriced" in admin.get("/runs/1/") and "unpriced" not in admin.get("/runs/2/")


def test_a_price_counts_from_its_day_on_and_the_latest_of_a_day_is_the_one(desk: DeskDriver, admin: Visitor) -> None:
    give(admin, since="2027-01-01", do="put")
    give(admin, since="2026-01-01", input="3", do="put")
    give(admin, since="2026-01-01", input="4", do="put")
    with db.transaction() as tx:
        price = overrides.book(tx).price(HAIKU, db.scalar(tx, "SELECT CAST('2026-11-20' AS timestamptz)"))
        former = overrides.book(tx).price(HAIKU, db.scalar(tx, "SELECT CAST('2025-12-31' AS timestamptz)"))
        later = overrides.book(tx).price(HAIKU, db.scalar(tx, "SELECT CAST('2027-01-01' AS timestamptz)"))
    assert price and former and later
    assert (former.name, price.name, later.name) == ("2025-01-01", "override 3", "override 1")


def test_each_change_is_an_event_with_who_and_what(admin: Visitor, desk: DeskDriver) -> None:
    give(admin, do="put")
    admin.send("/money/prices/1/remove")
    given, removed = desk.rows("SELECT kind, target, actor, reason FROM events WHERE target_kind = 'price' ORDER BY id")
    assert (given.kind, given.target, removed.target) == ("price", HAIKU, HAIKU)
    assert given.actor == removed.actor == desk.scalar("SELECT created_by FROM price_overrides") != "admin"
    assert "from 2026-11-01: $2 in, $10 out" in given.reason and "Our contract." in given.reason
    assert "from 2026-11-01 removed: $2 in" in removed.reason


def test_the_same_price_is_not_given_twice(admin: Visitor, desk: DeskDriver) -> None:
    give(admin, do="put")
    assert "has this price from 2026-11-01 on already" in give(admin, do="put").text
    assert desk.scalar("SELECT count(*) FROM price_overrides") == 1


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"model": ""}, "Name the model."),
        ({"model": "a\u202eb"}, "A name of characters that can be shown."),
        ({"since": "tomorrow"}, "A day is written as 2026-11-30."),
        ({"since": "2026-02-30"}, "There is no such day."),
        ({"since": "0001-01-01"}, "A day from 1900 to 2999."),
        ({"input": ""}, "What does the input cost?"),
        ({"input": "0"}, "Nothing is free here"),
        ({"output": "0.000"}, "Nothing is free here"),
        ({"read": "-1"}, "Write dollars such as 2.50"),
        ({"write_1h": "1e3"}, "Write dollars such as 2.50"),
        ({"input": "2,50"}, "Write dollars such as 2.50"),
        ({"input": "9" * 7}, "Write dollars such as 2.50"),
        ({"tokens": "100000"}, "Say below how many times the rates it then is."),
        ({"times": "5"}, "both, or neither"),
        ({"tokens": "many", "times": "5"}, "Write a number of tokens"),
        ({"note": ""}, "Say where this price is from"),
    ],
)
def test_a_price_that_makes_no_sense_is_not_put_in_force(
    admin: Visitor, desk: DeskDriver, fields: dict[str, str], told: str
) -> None:
    assert told in text(give(admin, **fields, do="put").text)
    assert desk.scalar("SELECT count(*) FROM price_overrides") == 0


def test_the_form_begins_with_what_the_model_costs_today(admin: Visitor) -> None:
    page = admin.get("/money/prices/new?model=claude-haiku-5-5")
    for name, value in {"input": "0.10", "read": "0.01", "tokens": "100000", "times": "5"}.items():
        assert re.search(rf'name="{name}"[^>]*value="{re.escape(value)}"', page), name


def test_what_nobody_knows_is_said_to_be_unknown(viewer: Visitor) -> None:
    page = text(viewer.get("/money/prices/?model=fable-5-2"))
    assert "claude-fable-5-2 unknown: its answers are unpriced" in page and "claude-opus" not in page
    assert "No model fits" in viewer.get("/money/prices/?model=nothing")
