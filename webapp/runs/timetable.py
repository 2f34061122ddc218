"""When a schedule is due: cron expressions in the time of a place, safe where its clocks are put forward or back.
Pure; schedules ask, and pages show the next times before anything is saved.

A time that does not exist on the day when clocks go forward is taken at the moment they do; one that comes twice when
they go back is taken once, the first time, unless the schedule is for every so many minutes or hours anyway.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from croniter import croniter
from croniter.croniter import CroniterError

from webapp.errors import InputError

FIELDS = 5
HELP = "Five fields: minute, hour, day of the month, month, day of the week; for example 30 2 * * 1-5."


@cache
def zones() -> tuple[str, ...]:
    """The names of time zones that people choose from, UTC first."""
    places = {name for name in available_timezones() if "/" in name and not name.startswith(("Etc/", "SystemV/"))}
    return ("UTC", *sorted(places))


def times(cron: str, zone: str, after: datetime, count: int) -> list[datetime]:
    """The next times of a schedule after a moment, in UTC.

    :raises InputError: the expression or the zone is none, or the expression never comes true.
    """
    if zone not in zones():
        raise InputError(f"“{zone}” is no time zone that is known here. Choose one, such as UTC or Europe/Berlin.")
    fields = cron.split()
    if len(fields) != FIELDS or not croniter.is_valid(cron):
        raise InputError(f"“{cron}” is no cron expression. {HELP}")
    every_hour = fields[1].startswith("*")
    found: list[datetime] = []
    try:
        ahead = croniter(cron, after.astimezone(ZoneInfo(zone)))
        while len(found) < count:
            when = ahead.get_next(datetime)
            if when.fold and not every_hour:
                continue  # the same time of day has just been
            found.append(when.astimezone(UTC))
    except CroniterError:
        raise InputError(f"“{cron}” never comes true. {HELP}") from None
    return found
