"""`batchdesk money`: what was spent over a period, and what batching and caching saved."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import click

from webapp import db
from webapp.cli.environment import opened
from webapp.errors import InputError
from webapp.money import spending
from webapp.money.spending import MOST_DAYS, MOST_PARTS, Scope, Spent

DAYS = 30  # of the period, where none is asked for
BY = ("day", "task", "model", "owner", "dataset", "account", "run")
DAY = click.DateTime(["%Y-%m-%d"])


@click.command()
@click.option("--since", type=DAY, metavar="DAY", help="The first day (UTC), such as 2026-11-01; default: 30 days.")
@click.option("--until", type=DAY, metavar="DAY", help="The last day (UTC), which is in it; default: today.")
@click.option("--by", type=click.Choice(BY), help="Tell it apart by this.")
@click.option("--sandbox", is_flag=True, help="The sandbox's play money instead, which nobody is billed for.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def money(since: datetime | None, until: datetime | None, by: str | None, sandbox: bool, as_json: bool) -> None:
    """What was spent and saved over a period."""
    with opened(working=False), db.transaction() as tx:
        scope = _scope(db.scalar(tx, "SELECT CAST(now() AT TIME ZONE 'UTC' AS date)"), since, until, sandbox)
        total = spending.total(tx, scope)
        found = spending.parts(tx, scope, by)[: MOST_DAYS if by == "day" else MOST_PARTS] if by else []
    if as_json:
        period = {"since": scope.since.isoformat(), "until": scope.until.isoformat(), "sandbox": sandbox}
        parts = {by: [{by: _key(one), "name": one.name} | _sums(one) for one in found]} if by else {}
        click.echo(json.dumps(period | _sums(total) | parts))
        return
    made_up = " (the sandbox's play money: nobody is billed)" if sandbox else ""
    click.echo(f"{scope.since} to {scope.until}, UTC{made_up}: {_words(total)}")
    for one in found:
        click.echo(f"{_name(one, str(by))}: {_words(one)}")


def _scope(today: date, since: datetime | None, until: datetime | None, sandbox: bool) -> Scope:
    last = until.date() if until else max(today, since.date()) if since else today
    first = since.date() if since else last - timedelta(days=DAYS - 1)
    if not 0 <= (last - first).days < MOST_DAYS:
        raise InputError(f"The period from {first} to {last} must have 1 to {MOST_DAYS} days.")
    return Scope(first, last, sandbox)


def _key(one: Spent) -> Any:
    return one.key.isoformat() if isinstance(one.key, date) else one.key


def _name(one: Spent, by: str) -> str:
    if one.key is None:
        return "no model named" if by == "model" else "unknown"
    return f"{one.name or by} (#{one.key})" if isinstance(one.key, int) else f"{one.name}"


def _sums(one: Spent) -> dict[str, Any]:
    """For JSON, whose numbers are read as doubles anyway; what holds an unpriced answer is null (`priced_usd` is what
    is known of it).
    """
    whole = not one.unpriced
    return {
        "answers": one.answers,
        "unpriced": one.unpriced,
        "duplicates": one.duplicates,
        "cost_usd": float(one.cost_usd) if whole else None,
        "priced_usd": float(one.cost_usd),
        "duplicate_usd": float(one.duplicate_usd),
        "sync_cost_usd": float(one.sync_usd) if whole else None,
        "uncached_cost_usd": float(one.uncached_usd) if whole else None,
        "saved_by_batching_usd": float(one.by_batching) if whole else None,
        "saved_by_caching_usd": float(one.by_caching) if whole else None,
    }


def _words(one: Spent) -> str:
    if one.all_unpriced:
        return f"unpriced, {one.answers:,} answers."
    unpriced = f" and {one.unpriced:,} unpriced answers" if one.unpriced else ""
    twice = f", {_usd(one.duplicate_usd)} of it for {one.duplicates:,} answers billed twice" if one.duplicates else ""
    return (
        f"{_usd(one.cost_usd)}{unpriced} for {one.answers:,} answers{twice}; "
        f"saved {_usd(one.by_batching)} by batching and {_usd(one.by_caching)} by caching."
    )


def _usd(amount: Decimal) -> str:
    return f"-${-amount:,.2f}" if amount <= Decimal("-0.005") else f"${abs(amount):,.2f}"
