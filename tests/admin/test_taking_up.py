"""Web processes take up a changed set of plugins between two requests, and say what they have."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from sqlalchemy import event
from support.desk import DeskDriver
from support.plugin_wheels import NAME, file_name, unloaded, wheel
from support.visitor import Visitor

from webapp import hearts, wishes
from webapp.batches.desk import Desk
from webapp.db import db, transaction
from webapp.installed import installing, overview
from webapp.packages import wheels
from webapp.settings import PluginInstall


@pytest.fixture(autouse=True)
def own_home(desk: DeskDriver, tmp_path: Path) -> Iterator[None]:
    desk.change(home=tmp_path / "home", plugin_install=PluginInstall.WEB)
    with unloaded():
        yield


def put(desk: DeskDriver, version: str, *, upgrade: bool = False) -> None:
    """As another process would install it."""
    found = wheels.read(wheel(version), file_name(version))
    wishes.ask_plugin_put(found, installing.tried(desk.desk, found), actor="ada", upgrade=upgrade)


def web() -> Any:
    """The row of this process."""
    with transaction() as tx:
        (row,) = overview.agreement(tx).processes
    return row


def test_the_next_request_has_what_was_installed_upgraded_and_removed(desk: DeskDriver, operator: Visitor) -> None:
    asked = "/runs/new?task=stamp"
    assert "for Stamp" not in operator.get(asked)
    assert (web().role, web().generation) == ("web", 0)

    put(desk, "1.0")
    with transaction() as tx:
        assert overview.agreement(tx).agree, "it was asked for nothing since"
    assert "for Stamp" in operator.get(asked)
    assert web().generation == 1
    task = desk.desk.registry.task("stamp")
    assert task.version == "1.0"

    put(desk, "2.0", upgrade=True)
    operator.get("/")
    assert desk.desk.registry.task("stamp").version == "2.0"
    assert type(task).process(task, None, type("Message", (), {"text": "a b"}), None)["version"] == "1.0"

    wishes.ask_plugin_remove(NAME, actor="ada")
    assert "for Stamp" not in operator.get(asked)
    assert web().generation == 3


def test_what_cannot_be_loaded_here_is_told_in_the_row_of_this_process(desk: DeskDriver, operator: Visitor) -> None:
    put(desk, "1.0")
    lacking = "jsonb_set(about::jsonb, '{requires}', '[\"no-such-library\"]')::json"
    desk.execute(f"UPDATE plugin_versions SET about = {lacking}")
    operator.get("/")
    (problem,) = web().plugin_problems
    assert problem["plugin"] == "stamping" and "no-such-library, which is not there" in problem["error"]
    with transaction() as tx:
        now = overview.agreement(tx)
    assert now.agree and now.troubled == [web().name]


def test_a_look_is_one_query_of_each_page_and_none_for_those_who_are_not_signed_in(
    operator: Visitor, visitor: Visitor
) -> None:
    operator.get("/runs/")
    asked: list[str] = []
    event.listen(db.engine, "before_cursor_execute", lambda _c, _cu, statement, *_: asked.append(statement))
    visitor.get("/login")
    visitor.get("/readyz")
    assert not [one for one in asked if "plugin_set" in one]
    for _ in range(3):
        operator.get("/runs/")
    assert len([one for one in asked if "plugin_set" in one]) == 3


def test_who_asks_while_another_request_loads_the_set_waits_for_it_and_has_it(
    desk: DeskDriver, operator: Visitor, admin: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = "/runs/new?task=stamp"
    assert "for Stamp" not in operator.get(asked)
    put(desk, "1.0")
    loading, going_on, load = Event(), Event(), Desk.take_up

    def slowly(self: Desk) -> Any:
        loading.set()
        assert going_on.wait(60)
        return load(self)

    monkeypatch.setattr(Desk, "take_up", slowly)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(operator.get, asked)
        assert loading.wait(60)
        second = threads.submit(admin.get, asked)
        assert not first.done()
        going_on.set()
        assert "for Stamp" in first.result(60)
        assert "for Stamp" in second.result(60)


def test_a_worker_says_what_it_has_and_loads_nothing_itself(desk: DeskDriver, tmp_path: Path) -> None:
    put(desk, "1.0")
    heart = hearts.PluginHeart("worker", desk.desk)
    heart.beat()
    assert (web().role, web().generation, web().plugin_problems) == ("worker", 1, None)
    assert (tmp_path / "home" / "plugins").is_dir()
    assert desk.desk.taken_up() is None
    wishes.ask_plugin_remove(NAME, actor="ada")
    with transaction() as tx:
        assert overview.agreement(tx).behind == [heart.name]
    heart._looked = None
    heart.beat()
    assert web().generation == 2
    assert list((tmp_path / "home" / "plugins").iterdir()) == []
    heart.stop()
    with transaction() as tx:
        assert overview.agreement(tx).processes == []
