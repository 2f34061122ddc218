"""The pictures of the home and the Money page: what was spent and saved by day, and what the API answered by hour.
Each is an SVG at an address of its own, drawn by pygal; the page has the same figures as a table for those who read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, timedelta
from decimal import Decimal

from flask import Blueprint, Response, current_app, request
from sqlalchemy import Connection

from webapp.admin.bars import stacked_bars
from webapp.admin.filters import Asked
from webapp.admin.formats import dollars
from webapp.admin.frame import reading
from webapp.admin.headers import DOWNLOAD
from webapp.admin.money import Wanted, bars
from webapp.batches.queries import Answers, answers_by_hour
from webapp.db import utcnow
from webapp.money import ledger

DAYS = 30
HOURS = 24

blueprint = Blueprint("charts", __name__, url_prefix="/charts")


@dataclass(frozen=True, slots=True)
class Spend:
    """What was billed over the last days, each day once: sums of what is priced, and how many answers are not.

    :param sandbox: they are list prices of made-up answers, and no spend (rule 11).
    """

    days: list[ledger.Day]
    sandbox: bool

    @property
    def spent(self) -> Decimal:
        return sum((day.cost_usd for day in self.days), Decimal())

    @property
    def saved(self) -> Decimal:
        return sum((saved(day) for day in self.days), Decimal())

    @property
    def unpriced(self) -> int:
        return sum(day.unpriced for day in self.days)

    @property
    def answers(self) -> int:
        return sum(day.lines for day in self.days)

    @property
    def billed(self) -> list[ledger.Day]:
        """The days that anything was billed on, the latest first."""
        return [day for day in reversed(self.days) if day.lines]


def saved(day: ledger.Day) -> Decimal:
    """What the same answers would have cost more, asked one by one; nothing where a second paid answer cost more."""
    return max(day.sync_cost_usd - day.cost_usd, Decimal())


def spend(tx: Connection, *, sandbox: bool) -> Spend:
    """The last days in UTC, those without a bill too."""
    found = {day.day: day for day in ledger.spend_by_day(tx, DAYS, sandbox=sandbox)}
    today = utcnow().date()
    days = [today - timedelta(days=back) for back in reversed(range(DAYS))]
    return Spend([found.get(day, _nothing(day)) for day in days], sandbox)


def _nothing(day: date) -> ledger.Day:
    return ledger.Day(day, Decimal(), Decimal(), 0, 0)


def answers(tx: Connection) -> list[Answers]:
    """The last hours, the present one last, those without an answer too."""
    now = utcnow().astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    hours = [now - timedelta(hours=back) for back in reversed(range(HOURS))]
    found = {one.hour: one for one in answers_by_hour(tx, hours[0])}
    return [found.get(hour, Answers(hour, 0, 0)) for hour in hours]


@blueprint.get("/spend.svg")
def spend_svg() -> Response:
    """What was spent by day, and on top of it what batching and caching saved."""
    found = spend(reading(), sandbox=current_app.extensions["batchdesk"].settings.sandbox)
    series = {
        "Spent": [float(day.cost_usd) for day in found.days],
        "Saved": [float(saved(day)) for day in found.days],
    }
    labels = [_day(day.day) for day in found.days]
    return _image("spend", labels, series, every=7, written=lambda value: dollars(Decimal(str(value))))


@blueprint.get("/answers.svg")
def answers_svg() -> Response:
    """What the API answered by hour: what succeeded, and on top of it what did not."""
    found = answers(reading())
    series = {"Succeeded": [one.succeeded for one in found], "Failed": [one.failed for one in found]}
    labels = [f"{back} h ago" if back else "now" for back in reversed(range(HOURS))]
    return _image("answers", labels, series, every=6, written=lambda value: f"{value:,.0f}")


@blueprint.get("/money.svg")
def money_svg() -> Response:
    """What was spent in the period of the Money page, and on top of it what batching and caching saved."""
    tx = reading()
    found = bars(tx, Wanted.of(tx, Asked()).scope)
    series = {
        "Spent": [float(one.cost_usd) for one in found],
        "Saved by batching": [float(max(one.by_batching, Decimal())) for one in found],
        "Saved by caching": [float(max(one.by_caching, Decimal())) for one in found],
    }
    labels = [f"{one.key:%b %Y}" if len(one.name or "") == len("2026-11") else _day(one.key) for one in found]
    every = max(1, len(labels) // 4)
    return _image("money", labels, series, every=every, written=lambda value: dollars(Decimal(str(value))))


def _day(day: date) -> str:
    return f"{day:%b} {day.day}"


def _image(
    kind: str,
    labels: Sequence[str],
    series: Mapping[str, Sequence[float]],
    *,
    every: int,
    written: Callable[[float], str],
) -> Response:
    narrow = "narrow" in request.args
    svg = stacked_bars(kind, labels, series, every=every * (2 if narrow else 1), written=written, narrow=narrow)
    response = Response(svg, mimetype="image/svg+xml")
    response.headers["Content-Security-Policy"] = DOWNLOAD
    return response
