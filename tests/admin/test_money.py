"""The Money page: what was spent and saved, by whatever one asks, over a period; and what a spreadsheet gets of it."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from support.desk import DeskDriver, documents
from support.visitor import Visitor

from webapp import db
from webapp.db import utcnow
from webapp.money import ledger, spending
from webapp.money.spending import Scope

# In a batch: half of 1 and of 5 dollars for a million tokens of input and of output.
PLAIN = {"input_tokens": 1_000_000, "output_tokens": 100_000}  # $0.50 and $0.25
READ = {"input_tokens": 0, "output_tokens": 0, "cache_read_input_tokens": 1_000_000}  # $0.05; uncached $1 one by one
WRITTEN = {
    "input_tokens": 0,
    "output_tokens": 0,
    "cache_creation_input_tokens": 1_000_000,
    "cache_creation": {"ephemeral_1h_input_tokens": 1_000_000},
}  # $1; uncached $1 one by one, $2 with it
HAIKU = "claude-haiku-4-5"


def bill(
    usage: dict[str, Any], *, run: int = 1, account: int = 1, days: int = 0, model: str = HAIKU, twice: bool = False
) -> None:
    """Append an answer to the ledger, of so many days ago."""
    at = utcnow().replace(hour=12) - timedelta(days=days)
    number = iter(range(10**6))
    with db.transaction() as tx:
        at_id = db.scalar(tx, "SELECT count(*) FROM ledger_lines") + next(number)
        billed = ledger.Billed(f"msgbatch_{days}_{twice}", account, run, at)
        one = ledger.bill(billed, f"c{at_id}", {"model": model, "usage": usage})
        ledger.append(tx, [ledger.line(one, 1, duplicate=twice)])


@pytest.fixture
def runs(desk: DeskDriver) -> None:
    """Two runs of two owners over two datasets, an account that pays and one of the sandbox."""
    for statement in (
        "INSERT INTO accounts (fingerprint, base_url, organization_id, sandbox) "
        "SELECT 'f' || n, 'http://u', 'org-' || n, n = 2 FROM generate_series(1, 2) n",
        "INSERT INTO datasets (name, source, text_field, created_by) "
        "SELECT 'set ' || n, 'd', 'text', 't' FROM generate_series(1, 2) n",
        "INSERT INTO runs (dataset_id, task, task_version, settings, token, subjects, owner, state) "
        "SELECT n, CASE n WHEN 1 THEN 'classify' ELSE 'summarise' END, '1', '{}', 't' || n, 1, 'owner ' || n, "
        "'finished' FROM generate_series(1, 2) n",
    ):
        desk.execute(statement)


def scope(**of: Any) -> Scope:
    today = utcnow().date()
    return Scope(**({"since": today - timedelta(days=29), "until": today} | of))


def spent(**of: Any) -> spending.Spent:
    with db.transaction() as tx:
        return spending.total(tx, scope(**of))


def by(part: str, **of: Any) -> dict[Any, Decimal]:
    with db.transaction() as tx:
        return {one.key: one.cost_usd for one in spending.parts(tx, scope(**of), part)}


def text(page: str) -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page)))


def test_what_was_saved_adds_up_to_what_it_would_have_cost_one_by_one_and_uncached(runs: None) -> None:
    bill(PLAIN)
    bill(WRITTEN)
    for _ in range(4):
        bill(READ)
    found = spent()
    # 0.75 + 1 + 4 × 0.05; twice that synchronously; six million tokens of input at a dollar and 0.5 for the output.
    assert (found.cost_usd, found.sync_usd, found.uncached_usd) == (Decimal("1.95"), Decimal("3.9"), Decimal("6.5"))
    assert (found.by_batching, found.by_caching) == (Decimal("1.95"), Decimal("2.6"))
    assert found.cost_usd + found.by_batching + found.by_caching == found.uncached_usd


def test_a_cache_that_is_written_and_not_read_has_cost_more_than_it_saved(runs: None, viewer: Visitor) -> None:
    bill(WRITTEN)
    assert spent().by_caching == Decimal(-1)
    page = viewer.get("/money/")
    assert "Caching cost more than it saved" in page and "-$1.00" in page


def test_a_second_paid_answer_is_spent_and_told_apart_and_saves_nothing(runs: None, viewer: Visitor) -> None:
    bill(PLAIN)
    bill(PLAIN, twice=True)
    found = spent()
    assert (found.answers, found.duplicates, found.cost_usd) == (2, 1, Decimal("1.5"))
    assert (found.duplicate_usd, found.by_batching) == (Decimal("0.75"), Decimal("0.75"))
    assert "1 answer came a second time and was billed again: $0.75" in text(viewer.get("/money/"))


def test_what_has_no_price_is_unpriced_and_not_nothing(runs: None, viewer: Visitor, admin: Visitor) -> None:
    bill(PLAIN, model="claude-unheard-of", run=2)
    page = viewer.get("/money/?by=task")
    assert "unpriced" in page and "$0.00" not in text(page)
    bill(PLAIN)
    page = text(viewer.get("/money/?by=task"))
    assert "$0.75 and 1 unpriced" in page and "1 answer has no known price and is in no sum: claude-unheard-of" in page
    assert 'href="/money/prices/new?model=claude-unheard-of"' in admin.get("/money/")
    assert "/prices/new" not in viewer.get("/money/")


def test_it_is_told_by_day_task_model_owner_dataset_account_and_run(runs: None) -> None:
    today = utcnow().date()
    bill(PLAIN)
    bill(READ, run=2, days=1)
    bill(READ, run=2, days=1, model="claude-opus-5")
    some, more = Decimal("0.75"), Decimal("0.3")
    assert by("day") == {today: some, today - timedelta(days=1): more}
    assert by("task") == {"classify": some, "summarise": more}
    assert by("model") == {HAIKU: Decimal("0.8"), "claude-opus-5": Decimal("0.25")}
    assert by("owner") == {"owner 1": some, "owner 2": more}
    assert by("dataset") == by("run") == {1: some, 2: more}
    assert by("account") == {1: some + more}
    assert by("task", model="claude-opus-5", owner="owner 2", dataset=2, account=1) == {"summarise": Decimal("0.25")}
    assert by("task", since=today) == {"classify": some} and by("day", until=today - timedelta(days=2)) == {}


def test_the_sandboxs_play_money_is_apart_and_named(runs: None, viewer: Visitor) -> None:
    bill(PLAIN)
    bill(READ, account=2)
    assert (spent().answers, spent(sandbox=True).cost_usd) == (1, Decimal("0.05"))
    page = text(viewer.get("/money/"))
    assert "The sandbox's play money In the same days the sandbox made up 1 answer, which would have cost $0.05" in page
    page = text(viewer.get("/money/?money=play"))
    assert "nobody is billed for them" in page and "1 answer of the API cost $0.75" in page
    assert "Spent ," not in page.partition("Told by")[0]


def test_without_an_api_key_the_page_shows_the_play_money(runs: None, desk: DeskDriver, viewer: Visitor) -> None:
    bill(READ, account=2)
    desk.change(anthropic_api_key=None, anthropic_base_url=None)
    assert "nobody is billed for them" in viewer.get("/money/")
    assert "Nothing was billed" in viewer.get("/money/?money=spent")


def test_an_empty_page_says_what_to_do(viewer: Visitor) -> None:
    assert "batchdesk run TASK FILE" in viewer.get("/money/")
    assert "Nothing was billed from 2020-01-01 to 2020-01-31" in viewer.get("/money/?from=2020-01-01&to=2020-01-31")


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("from=2019-01-01&to=2020-12-31", "A period has 366 days at most: this one begins on 2020-01-01."),
        ("from=x", "The filter from cannot be “x”"),
        ("task=none&owner=none&account=9&money=x&by=x", "The filter account cannot be “9”"),
        ("dataset=x", "The filter dataset cannot be “x”: it is a number."),
        ("from=2999-12-31", "Nothing was billed from 2999-12-31 to 2999-12-31"),
        ("to=1900-01-01", "Nothing was billed from 1899-12-03 to 1900-01-01"),
    ],
)
def test_filters_that_make_no_sense_are_told(viewer: Visitor, address: str, told: str) -> None:
    assert told in text(viewer.get(f"/money/?{address}"))
    picture = viewer.open(f"/charts/money.svg?{address}")
    assert (picture.status_code, picture.mimetype) == (200, "image/svg+xml")


def test_the_picture_shows_each_day_or_each_month(runs: None, viewer: Visitor) -> None:
    bill(PLAIN)
    bill(READ, days=40)
    days = re.findall(r'class="value">([^<]*)<', viewer.get("/charts/money.svg"))
    assert len(days) == 3 * 30 and days[29] == "$0.75" and days[59] == "$0.75"
    since = utcnow().date() - timedelta(days=200)
    months = re.findall(r'class="value">([^<]*)<', viewer.get(f"/charts/money.svg?from={since}"))
    assert len(months) in (3 * 2, 3 * 3) and months.count("$0.75") == 2


# -- the export ------------------------------------------------------------------------------------------------------


def exported(viewer: Visitor, kind: str, **filters: str) -> list[dict[str, Any]]:
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    response = viewer.open(f"/money/export.{kind}?{query}")
    assert response.status_code == 200 and "attachment" in response.headers["Content-Disposition"]
    if kind == "csv":
        return list(csv.DictReader(io.StringIO(response.text)))
    return [json.loads(line) for line in response.text.splitlines()]


def mixed() -> Iterator[dict[str, Any]]:
    """Usages that are priced by different rates, and one of everything."""
    yield PLAIN
    yield READ | {"inference_geo": "us"}
    yield WRITTEN | {"output_tokens": 7, "server_tool_use": {"web_search_requests": 3}}


def test_the_export_adds_up_to_the_ledger_by_day_account_model_and_class(runs: None, viewer: Visitor) -> None:
    for model in (HAIKU, "claude-haiku-5-5", "claude-opus-5-5"):
        for usage in mixed():
            bill(usage, model=model)
            bill(usage, model=model, days=2)
    bill({"input_tokens": 100_000, "output_tokens": 3}, model="claude-haiku-5-5")
    found = exported(viewer, "jsonl")
    assert sum(Decimal(one["cost_usd"]) for one in found) == spent().cost_usd
    assert not [one for one in found if one["class"] == "all"]
    for one in found:
        assert Decimal(one["cost_usd"]) * 1_000_000 == one["quantity"] * Decimal(one["rate_usd_per_million"])
        assert (one["account"], one["organization"], one["sandbox"]) == (1, "org-1", False)
    rates = {
        (one["model"], one["inference_geo"], one["price"], one["class"]): one["rate_usd_per_million"] for one in found
    }
    assert Decimal(rates[HAIKU, None, "2025-01-01", "input"]) == Decimal("0.5")
    assert Decimal(rates[HAIKU, "us", "2025-01-01", "read"]) == Decimal("0.055")
    assert Decimal(rates[HAIKU, None, "2025-01-01", "web_search"]) == 10_000
    assert Decimal(rates["claude-haiku-5-5", None, "2026-10-07", "output"]) == Decimal("0.25")
    assert Decimal(rates["claude-haiku-5-5", None, "2026-10-07 over", "output"]) == Decimal("1.25")
    days = {one["day"] for one in found}
    assert days == {utcnow().date().isoformat(), (utcnow().date() - timedelta(days=2)).isoformat()}


def test_the_export_for_spreadsheets_says_the_same_and_holds_no_formula(
    runs: None, desk: DeskDriver, viewer: Visitor
) -> None:
    desk.execute("UPDATE accounts SET organization_id = '=1+1', workspace_id = '@x'")
    for usage in mixed():
        bill(usage)
    exact, table = exported(viewer, "jsonl"), exported(viewer, "csv")
    assert [line["cost_usd"] for line in table] == [line["cost_usd"] for line in exact]
    assert {(line["organization"], line["workspace"], line["sandbox"]) for line in table} == {("'=1+1", "'@x", "no")}
    assert all(re.fullmatch(r"\d+(\.\d+)?", line["cost_usd"]) for line in table)


def test_the_export_keeps_to_the_filters_and_to_the_kind_of_money(runs: None, viewer: Visitor) -> None:
    bill(PLAIN)
    bill(READ, account=2)
    bill(READ, run=2, model="claude-unheard-of")
    assert {one["class"] for one in exported(viewer, "jsonl", money="play")} == {"read"}
    assert {one["class"] for one in exported(viewer, "csv", task="classify")} == {"input", "output"}
    (unpriced,) = exported(viewer, "jsonl", task="summarise")
    assert (unpriced["cost_usd"], unpriced["rate_usd_per_million"], unpriced["quantity"]) == (None, None, 1_000_000)
    assert viewer.open("/money/export.csv?from=x").status_code == 400


def test_a_cost_that_no_known_price_makes_is_exported_whole(runs: None, desk: DeskDriver, viewer: Visitor) -> None:
    """Lines of an earlier version name no price: where the shipped one gives their cost, it was that one."""
    bill(PLAIN)
    desk.execute("UPDATE ledger_tallies SET price = NULL")
    assert [Decimal(one["cost_usd"]) for one in exported(viewer, "jsonl")] == [Decimal("0.5"), Decimal("0.25")]
    desk.execute("UPDATE ledger_tallies SET price = 'override 77', cost_usd = 0.8")
    found = [(one["class"], one["quantity"], one["cost_usd"]) for one in exported(viewer, "jsonl")]
    assert found == [("input", 1_000_000, None), ("output", 100_000, None), ("all", 1, "0.8")]


def test_a_real_run_is_told_to_the_last_digit(desk: DeskDriver, viewer: Visitor) -> None:
    desk.run(documents(6))
    total = desk.scalar("SELECT sum(cost_usd) FROM ledger_lines")
    assert total > 0 and sum(Decimal(one["cost_usd"]) for one in exported(viewer, "jsonl")) == total
    page = viewer.get("/money/?by=task")
    assert f'value="{total:f}"' in page and "classify" in page


def test_the_day_is_that_of_utc_on_both_sides_of_midnight(runs: None) -> None:
    for hour, minute in ((23, 59), (0, 0)):
        at = datetime(2026, 11, 20 + (hour == 0), hour, minute, tzinfo=UTC)
        with db.transaction() as tx:
            billed = ledger.Billed(f"b{hour}", 1, 1, at)
            one = ledger.bill(billed, f"c{hour}", {"model": HAIKU, "usage": PLAIN})
            ledger.append(tx, [ledger.line(one, 1, duplicate=False)])
    found = by("day", since=date(2026, 11, 1), until=date(2026, 11, 30))
    assert found == {date(2026, 11, 20): Decimal("0.75"), date(2026, 11, 21): Decimal("0.75")}
