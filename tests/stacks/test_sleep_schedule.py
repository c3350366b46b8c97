"""Sleep's section of an environment is checked whole, and its schedules fire when it says."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from stacks.config import ConfigError, parse_environment
from stacks.constructs.maintenance import daily
from stacks.constructs.sleep import cron
from stacks.sections import Sleep

DEV = Path(__file__).resolve().parent.parent.parent / "environments" / "dev.toml"


def parse(sleep: dict[str, Any]) -> Sleep:
    return parse_environment("dev", tomllib.loads(DEV.read_text()) | {"sleep": sleep}).sleep


def test_a_schedule_has_both_times() -> None:
    assert parse({"at": "21:00", "wake": "07:30", "weekdays": ["MON", "SAT"]}).weekdays == ("MON", "SAT")
    assert parse({}).at is None


@pytest.mark.parametrize(
    ("sleep", "mistakes"),
    [
        ({"at": "21:00"}, ["sleep.wake: missing; a schedule needs both"]),
        (
            {"at": "24:00", "wake": "7:00"},
            ["sleep.at: string should match", "sleep.wake: string should match"],
        ),
        ({"at": "07:00", "wake": "07:00"}, ["sleep.wake: 07:00 is when it falls asleep"]),
        ({"weekdays": []}, ["sleep.weekdays: "]),
        ({"weekdays": ["MON", "MONDAY"]}, ["sleep.weekdays.1: "]),
        ({"time_zone": "europe/zurich"}, ["sleep.time_zone: "]),
        ({"snore": True}, ["sleep.snore: unknown key"]),
    ],
)
def test_mistakes_are_told_all_at_once(sleep: dict[str, Any], mistakes: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        parse(sleep)
    lines = str(error.value).splitlines()
    assert len(lines) == len(mistakes)
    assert all(any(mistake in line for line in lines) for mistake in mistakes)


@pytest.mark.parametrize(
    ("time", "weekdays", "expression"),
    [("21:00", "*", "cron(0 21 ? * * *)"), ("07:05", "MON,FRI", "cron(5 7 ? * MON,FRI *)")],
)
def test_times_become_schedules(time: str, weekdays: str, expression: str) -> None:
    assert cron(time, weekdays) == expression


@pytest.mark.parametrize(
    ("wake", "expression"),
    [
        (None, "cron(30 3 ? * * *)"),
        ("08:00", "cron(30 8 ? * MON,TUE,WED,THU,FRI *)"),
        ("07:45", "cron(15 8 ? * MON,TUE,WED,THU,FRI *)"),
        # At midnight another day would begin, on which it may sleep.
        ("23:40", "cron(59 23 ? * MON,TUE,WED,THU,FRI *)"),
    ],
)
def test_clean_up_runs_while_the_environment_is_awake(wake: str | None, expression: str) -> None:
    assert daily(Sleep(at="18:00", wake=wake) if wake else Sleep()) == expression
