"""When a schedule repeats, as a form: plain choices that become a cron expression, or an expression of one's own.
The pages of schedules show it.
"""

from __future__ import annotations

import re
from typing import Any

from flask import request
from wtforms import Form, SelectField, StringField
from wtforms.fields import SelectChoice
from wtforms.validators import InputRequired, Length, Regexp
from wtforms.widgets import TimeInput

from webapp.admin.destinations import chosen
from webapp.records.escapes import readable
from webapp.runs.schedules import Wanted
from webapp.runs.staleness import Over
from webapp.runs.timetable import HELP, zones

DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
EVERY = {
    "hour": "Every hour",
    "day": "Every day",
    "weekdays": "On weekdays, Monday to Friday",
    "week": "Every week",
    "cron": "By a cron expression",
}
# What the plain choices are as cron expressions.
_PLAIN = {
    "hour": re.compile(r"(?P<minute>\d+) \* \* \* \*"),
    "day": re.compile(r"(?P<minute>\d+) (?P<hour>\d+) \* \* \*"),
    "weekdays": re.compile(r"(?P<minute>\d+) (?P<hour>\d+) \* \* 1-5"),
    "week": re.compile(r"(?P<minute>\d+) (?P<hour>\d+) \* \* (?P<on>[0-6])"),
}


def _plainly(cron: str) -> tuple[str, str, str]:
    """(the choice, the time of day, the day of the week) that an expression stands for."""
    for every, pattern in _PLAIN.items():
        found = pattern.fullmatch(cron)
        if found:
            given = found.groupdict()
            return every, f"{int(given.get('hour', 0)):02}:{int(given['minute']):02}", given.get("on", "1")
    return "cron", "02:00", "1"


def in_words(cron: str) -> str:
    """A cron expression as people say it, where it is a plain one."""
    every, at, on = _plainly(cron)
    return {
        "hour": f"every hour, {int(at[3:])} minutes past",
        "day": f"every day at {at}",
        "weekdays": f"on weekdays at {at}",
        "week": f"every {DAYS[int(on)]} at {at}",
        "cron": f"by {cron}",
    }[every]


class ScheduleForm(Form):  # type: ignore[misc] # WTForms ships no types
    """What a schedule is but for its settings."""

    name = StringField("Name", [InputRequired("Give it a name."), Length(max=200)])
    every = SelectField("Repeat", choices=[SelectChoice(value, label) for value, label in EVERY.items()])
    at = StringField(
        "At",
        [Regexp(r"([01]\d|2[0-3]):[0-5]\d", message="A time of day is written as 02:30.")],
        widget=TimeInput(),
        description="The time of day in the zone below; for every hour, its minutes count.",
    )
    on = SelectField(
        "On",
        choices=[SelectChoice(str(n % 7), DAYS[n % 7]) for n in range(1, 8)],
        description="For every week.",
    )
    cron = StringField("Cron expression", description=f"For that choice only. {HELP}")
    zone = SelectField(
        "Time zone",
        choices=lambda: [SelectChoice(name, name.replace("_", " ")) for name in zones()],
        description="The clocks of that place, also when they go forward or back.",
    )

    @classmethod
    def of(cls, name: str) -> ScheduleForm:
        """For a new schedule."""
        return cls._filled(name=readable(name), every="day", at="02:00", on="1", cron="", zone="UTC")

    @classmethod
    def of_row(cls, schedule: Any) -> ScheduleForm:
        """For a schedule that there is."""
        every, at, on = _plainly(schedule.cron)
        cron = schedule.cron if every == "cron" else ""
        return cls._filled(name=readable(schedule.name), every=every, at=at, on=on, cron=cron, zone=schedule.zone)

    @classmethod
    def _filled(cls, **values: str) -> ScheduleForm:
        return cls(request.form if request.method == "POST" else None, data=values)

    @property
    def wanted(self) -> Wanted:
        """What the form says."""
        over = Over.STALE if request.form.get("over", Over.STALE) == Over.STALE else Over.ALL
        return Wanted(str(self.name.data).strip(), over, self._cron(), str(self.zone.data), tuple(chosen()))

    def _cron(self) -> str:
        if self.every.data == "cron":
            return " ".join(str(self.cron.data or "").split())
        hour, minute = (int(part) for part in str(self.at.data).split(":"))
        fields = {"hour": "* * * *", "day": f"{hour} * * *", "weekdays": f"{hour} * * 1-5"}
        return f"{minute} {fields.get(self.every.data, f'{hour} * * {self.on.data}')}"

    def blame(self, words: str) -> None:
        """Say that the time makes no sense."""
        field = self.cron if self.every.data == "cron" else self.every
        field.errors = [*field.errors, words]
