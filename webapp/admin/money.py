"""The pages of money: what was spent and saved over a period, its download for an invoice, and the prices.
Everybody sees them; admins change prices. Registered by `init_app` of this room.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

from flask import Response, current_app, flash, redirect, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from webapp import db
from webapp.admin import exporting, pricing
from webapp.admin.access import actor, manages
from webapp.admin.filters import Asked
from webapp.admin.frame import Page, act, back_to, expose, reading
from webapp.admin.lists import tasks_of
from webapp.admin.pricing import PriceForm
from webapp.errors import BatchdeskError
from webapp.money import overrides, spending
from webapp.money.spending import Charge, Scope, Spent
from webapp.records.escapes import readable

DAYS = 30  # of the period, where none is asked for
BARS = 92  # days that have a bar each; longer periods have one for each month
KINDS = {"spent": "spent", "play": "the sandbox's play money"}
BREAKDOWNS = ("day", "task", "model", "owner", "dataset", "account", "run")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an address asks the Money page for."""

    scope: Scope
    by: str
    accounts: dict[str, str]
    tasks: list[str]
    owners: list[str]

    @classmethod
    def of(cls, tx: Connection, asked: Asked) -> Wanted:
        """From the filters. A period that is too long is cut, and the page says so."""
        tasks = tasks_of(tx)
        owners = {readable(one): one for (one,) in db.rows(tx, "SELECT DISTINCT owner FROM runs ORDER BY owner")}
        accounts = accounts_of(tx)
        since, until = _period(tx, asked)
        account = asked.choice("account", list(accounts))
        kind = asked.choice("money", KINDS)
        scope = Scope(
            since,
            until,
            sandbox=(kind or ("play" if current_app.extensions["batchdesk"].settings.sandbox else "spent")) == "play",
            task=asked.choice("task", tasks),
            model=asked.text("model"),
            owner=owners.get(asked.choice("owner", owners) or ""),
            dataset=asked.row_id("dataset"),
            account=int(account) if account else None,
        )
        return cls(scope, asked.choice("by", BREAKDOWNS) or "day", accounts, tasks, list(owners))


def _period(tx: Connection, asked: Asked) -> tuple[date, date]:
    """The days asked for, both among them; else the last ones until today."""
    first, end = asked.days()
    today: date = db.scalar(tx, "SELECT CAST(now() AT TIME ZONE 'UTC' AS date)")
    last = end.date() - timedelta(days=1) if end else max(today, first.date()) if first else today
    since = first.date() if first else last - timedelta(days=DAYS - 1)
    if (last - since).days >= spending.MOST_DAYS:
        since = last - timedelta(days=spending.MOST_DAYS - 1)
        asked.given["from"] = since.isoformat()
        asked.problems.append(f"A period has {spending.MOST_DAYS} days at most: this one begins on {since}.")
    return since, last


def accounts_of(tx: Connection) -> dict[str, str]:
    """The accounts there are, by id as a text, as people know them."""
    return {
        str(one.id): f"#{one.id} " + ("sandbox" if one.sandbox else one.organization_id or one.base_url)
        for one in db.rows(tx, "SELECT id, organization_id, base_url, sandbox FROM accounts ORDER BY id LIMIT 100")
    }


def bars(tx: Connection, scope: Scope) -> list[Spent]:
    """The period as a picture shows it: each day once, or each month, the first one first."""
    if (scope.until - scope.since).days >= BARS:
        return spending.parts(tx, scope, "month")[::-1]
    found = {one.key: one for one in spending.parts(tx, scope, "day")}
    nothing = spending.NOTHING
    return [found.get(day) or nothing._replace(key=day, name=day.isoformat()) for day in spending.days(scope)]


class MoneyPage(Page):
    """What was spent and saved."""

    @expose("/")
    def index(self) -> ResponseReturnValue:
        tx, asked = reading(), Asked()
        wanted = Wanted.of(tx, asked)
        found = spending.parts(tx, wanted.scope, wanted.by)
        most = spending.MOST_DAYS if wanted.by in spending.IN_TIME else spending.MOST_PARTS
        return self.render(
            "desk/money.html",
            asked=asked,
            wanted=wanted,
            scope=wanted.scope,
            total=spending.total(tx, wanted.scope),
            other=spending.total(tx, replace(wanted.scope, sandbox=not wanted.scope.sandbox)),
            found=found[:most],
            more=len(found) > most,
            breakdowns=BREAKDOWNS,
            kinds=KINDS,
            unpriced_models=_unpriced_models(tx, wanted.scope),
        )

    @expose("/export.<any(jsonl, csv):kind>")
    def export(self, kind: str) -> ResponseReturnValue:
        """All charges of the period by day, account, model and token class."""
        tx, asked = reading(), Asked()
        wanted = Wanted.of(tx, asked)
        if asked.problems:
            return Response("\n".join(asked.problems) + "\n", 400, mimetype="text/plain")
        prices = overrides.book(tx)

        def rows(read: Any) -> Iterator[Charge]:
            for day in spending.days(wanted.scope):
                with read() as connection:
                    found = list(spending.charges(connection, prices, wanted.scope, day))
                yield from found

        name = f"money-{wanted.scope.since}-{wanted.scope.until}" + ("-sandbox" if wanted.scope.sandbox else "")
        return exporting.charges(rows, kind, name)

    @expose("/prices/")
    def prices(self) -> ResponseReturnValue:
        tx, asked = reading(), Asked()
        wanted = asked.text("model")
        return self.render("desk/prices.html", asked=asked, **pricing.listed(tx, wanted))

    @expose("/prices/new", methods=("GET", "POST"))
    @manages
    def add_price(self) -> ResponseReturnValue:
        tx, asked = reading(), Asked()
        form = PriceForm.of(tx, asked.text("model"))
        ready = request.method == "POST" and form.validate()
        if ready and request.form.get("do") == "put":
            try:
                pricing.add(form.wanted, actor=actor())
            except BatchdeskError as error:
                form.blame(str(error))
            else:
                flash(f"{form.wanted.model} has a price from {form.wanted.since} on.", "success")
                return redirect(url_for(".prices"), 303)
        return self.render("desk/price_new.html", form=form, asked=asked, wanted=form.wanted if ready else None)

    @expose("/prices/<row:price_id>/remove", methods=("GET", "POST"))
    @manages
    def remove_price(self, price_id: int) -> ResponseReturnValue:
        back = back_to(url_for(".prices"))
        if request.method == "POST":

            def deed() -> str:
                model = pricing.remove(price_id, actor=actor())
                return f"The price of {model} is removed. What was billed by it stays as it is."

            return act(back, deed)
        return self.render("desk/remove_price.html", price=pricing.find(reading(), price_id), back=back)


def _unpriced_models(tx: Connection, scope: Scope) -> list[str]:
    """The models in this period that lack a price, to lead to the page where one can be given."""
    found = spending.parts(tx, scope, "model")
    return [one.name for one in found if one.unpriced and one.name]
