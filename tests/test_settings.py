"""Settings: each value checked, every fault told at once, no secret in any of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webapp.errors import SettingsError
from webapp.settings import (
    PREFIX,
    SHARED_NAMES,
    VARIABLES,
    PluginInstall,
    PollSchedule,
    Settings,
    load,
    variable,
    without_credentials,
)

SECRETS = {
    "DATABASE_URL": "postgresql://me:hunter2hunter2@host/db",
    "REDIS_URL": "redis://:hunter2hunter2@host/0",
    "ANTHROPIC_API_KEY": "sk-ant-hunter2hunter2",
    "BATCHDESK_SECRET_KEY": "hunter2hunter2hunter2",
    "BATCHDESK_ADMIN_PASSWORD": "hunter2hunter2",
}


def faults(**environ: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(environ)
    return caught.value.faults


def test_an_empty_environment_is_a_sandbox_on_this_machine() -> None:
    settings = load({})
    assert settings.sandbox and settings.embedded and not settings.safe_mode
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.home.is_absolute() and settings.home.name == "instance"
    assert settings.web_install is PluginInstall.WEB


def test_the_contracts_defaults_hold() -> None:
    settings = load({"ANTHROPIC_API_KEY": "k"})
    assert settings.poll_schedule == ((300, 30), (1800, 60), (float("inf"), 300))
    assert (settings.batch_max_requests, settings.batch_max_bytes) == (10_000, 250_000_000)
    assert (settings.unknown_grace, settings.missing_wait) == (900, 600)
    assert (settings.max_attempts, settings.retry_delay) == (3, 300)


def test_the_contracts_names_are_all_there() -> None:
    ours = {
        *("SECRET_KEY", "HOME", "HOST", "PORT", "ADMIN_EMAIL", "ADMIN_PASSWORD", "PLUGIN_INSTALL", "SAFE_MODE"),
        *("POLL_SCHEDULE", "BATCH_MAX_REQUESTS", "BATCH_MAX_BYTES", "UNKNOWN_GRACE", "MISSING_WAIT", "MAX_ATTEMPTS"),
        *("RETRY_DELAY", "QUEUE_LIMIT", "TRUSTED_PROXIES", "FILES", "KEEP_PAYLOADS"),
    }
    assert set(VARIABLES) == {*SHARED_NAMES, *(PREFIX + name for name in ours)}


def test_an_unknown_name_is_a_fault_with_the_nearest_one() -> None:
    (fault,) = faults(BATCHDESK_POOL_SCHEDULE="*:1")
    assert fault == "BATCHDESK_POOL_SCHEDULE is not a setting. Did you mean BATCHDESK_POLL_SCHEDULE?"
    (fault,) = faults(BATCHDESK_XYZZY="1")
    assert "docs/settings.md" in fault


def test_names_of_others_are_none_of_our_business() -> None:
    load({"BATCH": "1", "ANTHROPIC_LOG": "debug", "PATH": "/bin", "batchdesk_port": "no"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "-1"),
        ("PORT", "65536"),
        ("PORT", "80.5"),
        ("BATCH_MAX_REQUESTS", "0"),
        ("BATCH_MAX_REQUESTS", "100001"),
        ("BATCH_MAX_REQUESTS", "many"),
        ("BATCH_MAX_BYTES", "999"),
        ("BATCH_MAX_BYTES", "256000001"),
        ("UNKNOWN_GRACE", "-1"),
        ("UNKNOWN_GRACE", "soon"),
        ("UNKNOWN_GRACE", "nan"),
        ("UNKNOWN_GRACE", "inf"),
        ("MISSING_WAIT", "-0.1"),
        ("MISSING_WAIT", "inf"),
        ("MAX_ATTEMPTS", "0"),
        ("MAX_ATTEMPTS", "21"),
        ("RETRY_DELAY", "-5"),
        ("RETRY_DELAY", "inf"),
        ("RETRY_DELAY", "nan"),
        ("POLL_SCHEDULE", "30"),
        ("POLL_SCHEDULE", "300:30"),
        ("POLL_SCHEDULE", "*:0"),
        ("POLL_SCHEDULE", "*:-1"),
        ("POLL_SCHEDULE", "*:inf"),
        ("POLL_SCHEDULE", "*:nan"),
        ("POLL_SCHEDULE", "nan:1,*:1"),
        ("POLL_SCHEDULE", "300:30,100:60,*:300"),
        ("POLL_SCHEDULE", "*:1,*:2"),
        ("POLL_SCHEDULE", "*:1,300:2"),
        ("POLL_SCHEDULE", ","),
        ("PLUGIN_INSTALL", "yes"),
        ("SAFE_MODE", "perhaps"),
        ("SECRET_KEY", "short"),
        ("ADMIN_PASSWORD", "short"),
    ],
)
def test_a_bad_value_is_one_fault_that_names_it_and_says_what_it_is_for(name: str, value: str) -> None:
    (fault,) = faults(**{PREFIX + name: value})
    assert fault.startswith(f"{PREFIX}{name}: ")
    assert str(Settings.model_fields[name.lower()].description) in fault
    assert (value in fault) == (name not in ("SECRET_KEY", "ADMIN_PASSWORD"))


def test_every_fault_is_told_at_once() -> None:
    found = faults(BATCHDESK_PORT="x", BATCHDESK_MAX_ATTEMPTS="0", BATCHDESK_TYPO="1", BATCHDESK_SECRET_KEY="short")
    assert len(found) == 4


def test_faults_of_values_and_of_companions_are_told_at_once() -> None:
    found = faults(BATCHDESK_PORT="x", ANTHROPIC_BASE_URL="https://proxy.example", DATABASE_URL="postgresql://h/d")
    assert len(found) == 3


def test_the_message_lists_every_fault() -> None:
    with pytest.raises(SettingsError) as caught:
        load({"BATCHDESK_PORT": "x", "BATCHDESK_TYPO": "1"})
    assert str(caught.value).count("\n  - ") == 2


def test_no_secret_is_in_a_message_or_in_the_settings_text() -> None:
    settings = load(SECRETS)
    for text in (repr(settings), str(settings), settings.model_dump_json(), repr(settings.model_dump())):
        assert "hunter2" not in text
    assert "hunter2" not in str(faults(**SECRETS, BATCHDESK_PORT="x", BATCHDESK_UNKNOWN_GRACE="5"))


@pytest.mark.parametrize("name", ["BATCHDESK_SECRET_KEY", "BATCHDESK_ADMIN_PASSWORD"])
def test_a_secret_that_will_not_do_is_not_shown(name: str) -> None:
    assert "hunt" not in str(faults(**{name: "hunt"}))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("DATABASE_URL", "hunter2", "cannot be read"),
        ("DATABASE_URL", "postgresql://me:hunter2@host:port/db", "cannot be read"),
        ("DATABASE_URL", "mysql://me:hunter2@host/db", "must begin with postgresql://"),
        ("DATABASE_URL", "postgresql+psycopg2://me:hunter2@host/db", "must begin with postgresql://"),
        ("DATABASE_URL", "postgresql://me:hunter2@host/db?hunter2=1", "PostgreSQL does not know"),
        ("REDIS_URL", "hunter2", "must begin with redis://"),
        ("REDIS_URL", "http://:hunter2@host", "must begin with redis://"),
        ("REDIS_URL", "valkey://:hunter2@host/0", "write redis:// in place of valkey://"),
        ("REDIS_URL", "valkeys://:hunter2@host/0", "write rediss:// in place of valkeys://"),
        ("REDIS_URL", "redis://:hunter2/2@host", "cannot be read"),
        ("REDIS_URL", "redis://:hunter2@host?hunter2=1", "does not know"),
        ("REDIS_URL", "unix://", "names no socket"),
        ("ANTHROPIC_BASE_URL", "hunter2", "http:// or https://"),
        ("ANTHROPIC_BASE_URL", "ftp://me:hunter2@host", "http:// or https://"),
        ("ANTHROPIC_BASE_URL", "https://", "a host"),
        ("ANTHROPIC_BASE_URL", "https:///hunter2", "a host"),
        ("ANTHROPIC_BASE_URL", "https://me:hunter2/2@host", "cannot be read"),
        ("ANTHROPIC_BASE_URL", "https://me:hunter2@host:99999", "a port"),
    ],
)
def test_a_url_that_no_client_can_use_is_a_fault_that_does_not_show_it(name: str, value: str, words: str) -> None:
    (fault,) = faults(**(SECRETS | {name: value}))
    assert fault.startswith(f"{name}: its value will not do: ") and words in fault
    assert "hunter2" not in fault


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "postgres://me@host/db?sslmode=require"),
        ("DATABASE_URL", "postgresql+psycopg://me:a#b@host/db"),
        ("DATABASE_URL", "postgresql:///db?host=/run/postgresql&port=5433"),
        ("REDIS_URL", "redis://"),
        ("REDIS_URL", "rediss://:hunter2@host:6380/1?ssl_cert_reqs=none"),
        ("REDIS_URL", "unix:///run/valkey.sock?db=2"),
        ("ANTHROPIC_BASE_URL", "https://me:hunter2@host/prefix"),
        ("ANTHROPIC_BASE_URL", "http://[::1]:8080"),
    ],
)
def test_urls_that_the_clients_know_pass_as_they_are(name: str, value: str) -> None:
    found = getattr(load(SECRETS | {name: value}), VARIABLES[name])
    assert value == (found if isinstance(found, str) else found.get_secret_value())


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:hunter2@host:8080/x", "https://host:8080/x"),
        ("https://me:hun@ter2@[::1]/", "https://[::1]/"),
        ("http://host", "http://host"),
        ("*:1", "*:1"),
    ],
)
def test_credentials_are_taken_out_of_a_url(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


def test_a_base_url_without_a_key_is_a_fault() -> None:
    (fault,) = faults(ANTHROPIC_BASE_URL="http://127.0.0.1:1")
    assert "ANTHROPIC_API_KEY" in fault


def test_a_database_of_ones_own_needs_the_secret_key_that_all_machines_share() -> None:
    (fault,) = faults(DATABASE_URL="postgresql://host/db")
    assert fault.startswith("BATCHDESK_SECRET_KEY")


@pytest.mark.parametrize(
    ("base_url", "fine"),
    [
        ("http://127.0.0.1:8080", True),
        ("http://localhost:8080/prefix", True),
        ("http://[::1]:1", True),
        ("http://127.9.9.9", True),
        ("https://api.anthropic.com", False),
        ("https://127.0.0.1.example.com", False),
        ("https://localhost.example", False),
        ("", False),
    ],
)
def test_a_grace_below_the_request_timeout_is_for_loopback_only(base_url: str, fine: bool) -> None:
    """Below it, a POST that is still under way could be sent a second time."""
    environ = {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_BASE_URL": base_url, "BATCHDESK_UNKNOWN_GRACE": "599"}
    if fine:
        assert load(environ).unknown_grace == 599
    else:
        assert "could be sent twice" in faults(**environ)[0]
    assert load(environ | {"BATCHDESK_UNKNOWN_GRACE": "600"}).unknown_grace == 600


def test_the_sandbox_may_have_any_grace() -> None:
    assert load({"BATCHDESK_UNKNOWN_GRACE": "0"}).unknown_grace == 0


def test_an_empty_value_is_as_good_as_none() -> None:
    assert load(dict.fromkeys(VARIABLES, "")) == load({})


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("0", False), ("true", True), ("false", False)])
def test_safe_mode_is_a_switch(value: str, expected: bool) -> None:
    assert load({"BATCHDESK_SAFE_MODE": value}).safe_mode is expected


def test_a_home_may_begin_with_a_tilde() -> None:
    assert load({"BATCHDESK_HOME": "~/desk"}).home == Path("~/desk").expanduser()


def test_settings_do_not_change() -> None:
    with pytest.raises(Exception, match="frozen"):
        load({}).port = 1


def test_plugins_are_installed_from_the_web_on_one_machine_only() -> None:
    production: dict[str, Any] = {**SECRETS}
    assert load(production).web_install is PluginInstall.CLI
    assert load(production | {"BATCHDESK_PLUGIN_INSTALL": "off"}).web_install is PluginInstall.OFF


def test_each_field_has_a_description_and_a_variable() -> None:
    for field, info in Settings.model_fields.items():
        assert info.description and info.description.endswith(".")
        assert VARIABLES[variable(field)] == field


schedules = st.lists(
    st.tuples(st.integers(1, 10**6), st.integers(1, 10**4)), max_size=5, unique_by=lambda step: step[0]
)


@given(schedules, st.integers(1, 10**4), st.floats(0, 10**7))
def test_a_schedule_always_knows_the_next_wait(steps: list[tuple[int, int]], last: int, age: float) -> None:
    steps = sorted(steps)
    text = ",".join([*(f"{until}:{every}" for until, every in steps), f"*:{last}"])
    expected = next((every for until, every in steps if age < until), last)
    assert PollSchedule.parse(text).every(age) == expected
