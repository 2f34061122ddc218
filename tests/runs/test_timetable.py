"""When schedules are due, also on the days when the clocks go forward or back."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from webapp.errors import InputError
from webapp.runs.timetable import times, zones

BERLIN = "Europe/Berlin"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def told(cron: str, zone: str, after: str, count: int = 3) -> list[str]:
    return [f"{when:%m-%d %H:%M}" for when in times(cron, zone, at(after), count)]


def test_times_are_those_of_the_place() -> None:
    assert told("30 2 * * *", "UTC", "2026-01-10 02:30") == ["01-11 02:30", "01-12 02:30", "01-13 02:30"]
    assert told("30 2 * * *", "Asia/Kathmandu", "2026-01-10 00:00") == ["01-10 20:45", "01-11 20:45", "01-12 20:45"]
    assert told("0 9 * * 1-5", BERLIN, "2026-01-09 12:00") == ["01-12 08:00", "01-13 08:00", "01-14 08:00"]
    assert told("0 9 * * 0", BERLIN, "2026-01-09 12:00", 2) == ["01-11 08:00", "01-18 08:00"]


def test_a_time_that_the_spring_leaves_out_comes_when_the_clocks_go_forward() -> None:
    assert told("30 2 * * *", BERLIN, "2026-03-28 12:00") == ["03-29 01:00", "03-30 00:30", "03-31 00:30"]
    assert told("0 9 * * *", BERLIN, "2026-03-28 12:00", 2) == ["03-29 07:00", "03-30 07:00"]
    assert told("0 * * * *", BERLIN, "2026-03-28 23:30") == ["03-29 00:00", "03-29 01:00", "03-29 02:00"]


def test_a_time_that_the_autumn_brings_twice_comes_once() -> None:
    assert told("30 2 * * *", BERLIN, "2026-10-24 12:00") == ["10-25 00:30", "10-26 01:30", "10-27 01:30"]
    assert told("30 2 * * *", BERLIN, "2026-10-25 00:30", 1) == ["10-26 01:30"]
    assert told("*/30 2 * * *", BERLIN, "2026-10-24 12:00") == ["10-25 00:00", "10-25 00:30", "10-26 01:00"]
    assert told("0 9 * * *", BERLIN, "2026-10-24 12:00", 2) == ["10-25 08:00", "10-26 08:00"]


def test_every_hour_is_every_hour_also_in_the_autumn() -> None:
    hours = ["10-25 00:00", "10-25 01:00", "10-25 02:00"]
    assert told("0 * * * *", BERLIN, "2026-10-24 23:00") == hours


@pytest.mark.parametrize(
    ("cron", "zone", "words"),
    [
        ("", "UTC", "is no cron expression. Five fields"),
        ("* * * *", "UTC", "is no cron expression"),
        ("* * * * * *", "UTC", "is no cron expression"),
        ("61 * * * *", "UTC", "is no cron expression"),
        ("@daily", "UTC", "is no cron expression"),
        ("0 0 30 2 *", "UTC", "never comes true"),
        ("0 0 * * *", "Mars/Olympus", "“Mars/Olympus” is no time zone"),
        ("0 0 * * *", "../etc/passwd", "is no time zone"),
    ],
)
def test_a_time_that_makes_no_sense_is_refused_in_words(cron: str, zone: str, words: str) -> None:
    with pytest.raises(InputError, match=r".") as caught:
        told(cron, zone, "2026-01-01")
    assert words in str(caught.value)


def test_every_zone_that_is_offered_can_be_used() -> None:
    assert zones()[0] == "UTC" and BERLIN in zones()
    assert all(times("0 0 * * *", zone, at("2026-01-01"), 1) for zone in zones())
