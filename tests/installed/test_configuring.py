"""The plugins' own settings: defaults until somebody stores others, checked by the plugin, told with who it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel
from support.desk import DeskDriver

from webapp import db, wishes
from webapp.errors import InputError, NotFound
from webapp.installed import configuring

PLUGIN = """
from pydantic import BaseModel, Field
from webapp.hooks import Secret, hookimpl


class Settings(BaseModel):
    most: int | None = Field(None, ge=1)
    words: list[str] = []
    key: Secret | None = None


@hookimpl
def check_run(run, settings):
    return None
"""


@pytest.fixture
def plugin(desk: DeskDriver, tmp_path: Path) -> str:
    desk.use_plugin(tmp_path / "plugins", PLUGIN)
    return "testing"


def settings(desk: DeskDriver, plugin: str) -> BaseModel:
    registry = desk.desk.registry
    with db.transaction() as tx:
        return configuring.settings_of(tx, registry, configuring.plugin_named(registry, plugin))


def test_a_plugin_has_its_defaults_until_somebody_changes_them(desk: DeskDriver, plugin: str) -> None:
    assert settings(desk, plugin).model_dump() == {"most": None, "words": [], "key": None}

    assert wishes.ask_configure(plugin, {"most": "5", "words": "a, b"}, actor="ann")

    assert settings(desk, plugin).model_dump() == {"most": 5, "words": ["a", "b"], "key": None}


def test_what_is_not_named_stays_as_it_is(desk: DeskDriver, plugin: str) -> None:
    wishes.ask_configure(plugin, {"most": "5"}, actor="ann")
    wishes.ask_configure(plugin, {"key": "env:TOKEN"}, actor="ben")

    assert settings(desk, plugin).model_dump() == {"most": 5, "words": [], "key": "env:TOKEN"}
    told = desk.rows("SELECT actor, kind, reason FROM events WHERE target_kind = 'plugin' AND target = 'testing'")
    assert [tuple(line) for line in told] == [
        ("ann", "wish", "Settings changed: most = 5."),
        ("ben", "wish", 'Settings changed: key = "env:TOKEN".'),
    ]


def test_what_changes_nothing_is_no_event(desk: DeskDriver, plugin: str) -> None:
    assert not wishes.ask_configure(plugin, {"most": ""}, actor="ann")
    assert desk.scalar("SELECT count(*) FROM events") == 0


def test_bad_settings_are_refused_as_a_whole_and_never_repeat_a_secret(desk: DeskDriver, plugin: str) -> None:
    with pytest.raises(InputError) as caught:
        wishes.ask_configure(plugin, {"most": "0", "key": "hunter2", "wrods": "x", "words": "a"}, actor="ann")

    words = str(caught.value)
    assert "Plugin 'testing'" in words and "'most' is '0'" in words and "env:NAME" in words
    assert "'wrods' is unknown. Did you mean 'words'?" in words
    assert "hunter2" not in words
    assert settings(desk, plugin).model_dump() == {"most": None, "words": [], "key": None}


def test_a_setting_that_an_upgrade_has_taken_away_is_told_and_dropped_with_the_next_change(
    desk: DeskDriver, plugin: str, tmp_path: Path
) -> None:
    wishes.ask_configure(plugin, {"most": "5", "words": "a"}, actor="ann")
    desk.use_plugin(tmp_path / "newer", PLUGIN.replace("    words: list[str] = []\n", ""))

    with pytest.raises(InputError, match="'words' is unknown"):
        settings(desk, plugin)
    wishes.ask_configure(plugin, {"most": "6"}, actor="ann")

    assert settings(desk, plugin).model_dump() == {"most": 6, "key": None}


def test_a_plugin_that_is_not_there_has_no_settings(plugin: str) -> None:
    with pytest.raises(NotFound, match=r"no plugin 'limit'.*testing"):
        wishes.ask_configure("limit", {}, actor="ann")
