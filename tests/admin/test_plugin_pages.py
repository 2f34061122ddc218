"""The pages of plugins: what is there, what is left out and why, and what admins do with it."""

from __future__ import annotations

import html
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.desk import DeskDriver, documents
from support.forms import fields
from support.plugin_wheels import NAME, file_name, wheel
from support.visitor import Visitor

from webapp import db, hearts, wishes
from webapp.batches.naming import new_token
from webapp.hooks import Registry, load_plugins
from webapp.hooks.loading import Loader
from webapp.runs.staleness import Over
from webapp.settings import PluginInstall

INSTALL, PAGE = "/plugins/install", f"/plugins/{NAME}/"
BROKEN = "raise RuntimeError('<b>no</b>')\n"


@pytest.fixture(autouse=True)
def own_home(desk: DeskDriver, tmp_path: Path) -> Iterator[None]:
    """Wheels are unpacked in the test's own folder, and nothing of them is left in this process."""
    desk.change(home=tmp_path / "home", plugin_install=PluginInstall.WEB)
    path = list(sys.path)
    yield
    sys.path[:] = path
    sys.modules.pop("stamping", None)


def words(page: str) -> str:
    """What a page says, without its markup."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def upload(admin: Visitor, content: bytes, version: str = "1.0") -> str:
    """Send a wheel; the address of its installation."""
    file = (io.BytesIO(content), file_name(version))
    response = admin.send(INSTALL, wanted="", file=file)
    assert response.status_code == 303, response.text
    return str(response.headers["Location"])


def install(admin: Visitor, desk: DeskDriver, version: str = "1.0", **changes: str) -> str:
    """Install a wheel from its upload to the end; the address of its installation."""
    at = upload(admin, wheel(version, **changes), version)
    desk.perform_due()
    admin.post(f"{at}confirm")
    desk.perform_due()
    desk.desk.take_up()
    return at


def start(desk: DeskDriver) -> int:
    """A run of the installed task."""
    other = desk.start(documents(3))
    wishes.ask_cancel_run(other, actor="tester")
    dataset = desk.scalar("SELECT dataset_id FROM runs WHERE id = :id", id=other)
    return wishes.ask_start(dataset, "stamp", {}, over=Over.ALL, actor="tester", token=new_token())


def test_everybody_sees_what_ships_how_it_does_and_nobody_but_admins_acts(
    viewer: Visitor, operator: Visitor, desk: DeskDriver
) -> None:
    desk.run(documents(4))
    desk.run(documents(3), task="summarise")
    desk.execute(
        "UPDATE tallies SET ok = ok - 1, invalid = invalid + 1 WHERE run_id = 2 AND scope = 'items' AND ok > 1"
    )
    page = viewer.get("/plugins/")
    said = words(page)
    assert "classify ships with Batchdesk on task classify 1 run, none of 4 answers no use" in said
    assert "1 run, 33.3% of 3 answers no use last in run 2" in said
    assert "limits ships with Batchdesk on hook check_run" in said and "not run lately" in said
    for person in (viewer, operator):
        assert f'"{INSTALL}"' not in person.get("/plugins/") and "An admin can install one here" in said
        one = person.get("/plugins/classify/")
        assert "<form" not in one.partition("<main")[2] and "labels required The labels to choose from" in words(one)
        assert "/disable" not in one and "version 2, for records of the kind document" in words(one)
    viewer.get("/plugins/nothing-like-it/", 404)


def test_a_wheel_is_looked_into_confirmed_and_then_there(admin: Visitor, viewer: Visitor, desk: DeskDriver) -> None:
    assert INSTALL in admin.get("/plugins/")
    content = wheel(requires=["pydantic>=2"], metadata=["Author: Ann <b>", "License-Expression: MIT"])
    at = upload(admin, content)
    assert "It is being looked into" in viewer.get(at) and "/confirm" not in admin.get(at)
    desk.perform_due()
    said = words(admin.get(at))
    assert f"{NAME} waiting" in said and "Install it? Version 1.0 What it is Stamps each record." in said
    assert "From Ann <b>, licence MIT Depends on pydantic>=2 Hooks register_tasks Modules stamping" in said
    sha256 = desk.scalar("SELECT sha256 FROM plugin_installs")
    assert f"SHA-256 {sha256}" in said and "stamping" not in sys.modules
    assert "waits for an admin" in viewer.get(at) and "/confirm" not in viewer.get(at)
    assert f"{NAME} #1 waiting version 1.0" in words(viewer.get("/plugins/"))
    assert "goes on by itself" in admin.post(f"{at}confirm") and "It is being tried" in viewer.get(at)
    desk.perform_due()
    assert f"{NAME} 1.0 is there" in words(admin.get(at))
    desk.desk.take_up()
    said = words(viewer.get("/plugins/"))
    assert f"{NAME} 1.0 · installed by admin@desk.example on task stamp" in said
    run_id = start(desk)
    desk.work_until_over(run_id)
    said = words(viewer.get(PAGE))
    assert f"1.0 in use just now by admin@desk.example runs {run_id} {sha256}" in said
    assert "Version 1.0 installed (sha256" in said and "1 run of late; none of 3 answers no use." in said
    assert f"{NAME} on" in words(viewer.get("/plugins/stamping/")), "found by either name"
    assert PAGE in viewer.get("/events/") and at in viewer.get("/events/")


def test_a_plugin_that_is_wanted_by_name_is_asked_for(admin: Visitor, desk: DeskDriver) -> None:
    assert fields(admin.get(f"{INSTALL}?wanted={NAME}"))["wanted"] == NAME
    response = admin.send(INSTALL, wanted=f" {NAME}==1.0 ")
    assert desk.scalar("SELECT wanted FROM plugin_installs") == f"{NAME}==1.0"
    at = response.headers["Location"]
    assert "is not installed" in admin.post(f"{at}drop") and "left alone" in admin.get(at)
    for wanted in ("", "--no-deps stamp", "https://example.com/x.whl"):
        response = admin.send(INSTALL, wanted=wanted)
        assert response.status_code == 400 and 'role="alert"' in response.text
    response = admin.send(INSTALL, file=(io.BytesIO(b"text"), "notes.txt"))
    assert response.status_code == 400 and "Choose a wheel" in response.text
    response = admin.open(INSTALL, "POST", environ_overrides={"CONTENT_LENGTH": "20200000"})
    assert response.status_code == 413 and "A wheel may have 20 MB." in response.text


def test_what_cannot_be_installed_says_why(admin: Visitor, desk: DeskDriver) -> None:
    at = upload(admin, wheel(requires=["not-there-at-all>=3"]))
    desk.perform_due()
    said = words(admin.get(at))
    assert "refused" in said and "not-there-at-all" in said and "Try again" in said
    at = install(admin, desk, source=BROKEN)
    page = admin.get(at)
    assert "RuntimeError" in words(page) and "Traceback" in page
    assert "&lt;b&gt;no&lt;/b&gt;" in page and "<b>no</b>" not in page
    assert desk.scalar("SELECT count(*) FROM plugins") == 0
    admin.get(PAGE, 404)


def test_a_plugin_is_upgraded_rolled_back_disabled_and_removed_while_a_run_keeps_its_version(
    admin: Visitor, desk: DeskDriver
) -> None:
    install(admin, desk)
    run_id = start(desk)
    at = upload(admin, wheel("1.1"), "1.1")
    desk.perform_due()
    assert "Upgrade from 1.0 to 1.1?" in words(admin.get(at))
    admin.post(f"{at}confirm")
    desk.perform_due()
    desk.desk.take_up()
    said = words(admin.get(PAGE))
    assert "Roll back to 1.0" in said and "1 run that is not over names a version of it" in said
    assert re.search(rf"1\.0 kept .*? runs {run_id} 1 not over", said) and "1.1 in use" in said
    asked = words(admin.get(f"{PAGE}rollback"))
    assert f"Roll back {NAME} to 1.0?" in asked and f"Run {run_id} is not over, and keeps the version" in asked
    assert f"{NAME} is at version 1.0 again" in admin.post(f"{PAGE}rollback")
    asked = words(admin.get(f"{PAGE}disable"))
    assert "Nothing new is started with it" in asked and "It brings task stamp." in asked
    said = words(admin.post(f"{PAGE}disable"))
    desk.desk.take_up()
    assert f"{NAME} is disabled" in said and "Disabled by admin@desk.example" in words(admin.get(PAGE))
    assert "is disabled already" in admin.post(f"{PAGE}disable")
    assert "is enabled" in admin.post(f"{PAGE}enable")
    desk.work_until_over(run_id)
    assert desk.summary(run_id).succeeded == 3
    assert "Outputs that there are stay" in words(admin.get(f"{PAGE}remove"))
    said = words(admin.post(f"{PAGE}remove"))
    assert f"{NAME} is removed" in said and "Install again" in said and "1.1 gone" in said
    desk.desk.take_up()
    assert f"{NAME} " not in words(admin.get("/plugins/")).partition("Do all processes")[0].partition("Plugin State")[2]


def test_one_that_ships_is_disabled_and_enabled_but_neither_rolled_back_nor_removed(
    admin: Visitor, desk: DeskDriver
) -> None:
    page = admin.get("/plugins/summarise/")
    assert "/disable" in page and "/remove" not in page and "/rollback" not in page
    admin.post("/plugins/summarise/disable")
    desk.desk.take_up()
    said = words(admin.get("/plugins/"))
    assert "summarise ships with Batchdesk disabled nothing now" in said
    assert "Enable" in words(admin.get("/plugins/summarise/"))
    admin.post("/plugins/summarise/enable")
    desk.desk.take_up()
    assert "summarise" in desk.desk.registry.tasks
    for deed in ("rollback", "remove"):
        response = admin.open(f"/plugins/summarise/{deed}")
        assert response.status_code == 302 and "is not installed" in admin.get("/plugins/summarise/")
        admin.get(f"/plugins/nothing-like-it/{deed}", 404)


@pytest.mark.parametrize(
    ("way", "told"),
    [(PluginInstall.CLI, "with `batchdesk plugins install`"), (PluginInstall.OFF, "Installing plugins is off")],
)
def test_where_the_dashboard_does_not_install_it_says_how_it_is_done(
    admin: Visitor, desk: DeskDriver, way: PluginInstall, told: str
) -> None:
    install(admin, desk)
    waiting = upload(admin, wheel("1.1"), "1.1")
    desk.perform_due()
    desk.change(plugin_install=way)
    desk.desk.take_up()
    assert ("It is not loaded. Installing plugins is off" in words(admin.get(PAGE))) == (way == PluginInstall.OFF)
    page = admin.get("/plugins/")
    assert told in words(page) and f'"{INSTALL}"' not in page
    page = admin.get(INSTALL)
    assert told in words(page) and 'type="file"' not in page
    assert told in admin.send(INSTALL, wanted=NAME).text
    page = admin.get(PAGE)
    assert "/remove" not in page and "/rollback" not in page and f"{INSTALL}?" not in page
    assert told in words(admin.get(waiting)) and "/confirm" not in admin.get(waiting)
    assert told in words(admin.post(f"{waiting}confirm")) and told in words(admin.post(f"{PAGE}remove"))


def test_safe_mode_is_said_loudly(admin: Visitor, desk: DeskDriver, tmp_path: Path) -> None:
    desk.change(safe_mode=True)
    desk.desk.registry = Registry()
    page = admin.get("/plugins/")
    assert "summarise ships with Batchdesk not loaded nothing now" in words(page)
    assert "Safe mode: no plugin is loaded" in words(page) and "BATCHDESK_SAFE_MODE=1" in page
    assert "There is no plugin" not in page


def test_without_any_plugin_the_page_says_what_to_do(viewer: Visitor, desk: DeskDriver, tmp_path: Path) -> None:
    desk.desk.loader = Loader(tmp_path, entry_points=False)
    desk.desk.registry = Registry()
    assert "There is no plugin Without one there is no task to run" in words(viewer.get("/plugins/"))


def test_what_is_left_out_is_told_with_its_traceback_folded_and_escaped(
    admin: Visitor, desk: DeskDriver, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "bad.py").write_text(BROKEN)
    desk.desk.registry = load_plugins(folder=tmp_path / "mine", entry_points=False)
    for path in ("/plugins/", "/plugins/bad/"):
        page = admin.get(path)
        assert "left out" in words(page) and "RuntimeError" in words(page)
        assert "<details" in page and "Traceback (most recent call last)" in page
        assert "<b>no</b>" not in page and "&lt;b&gt;no&lt;/b&gt;" in page


def test_processes_that_do_not_have_the_present_set_are_named_with_what_they_lack(
    viewer: Visitor, desk: DeskDriver
) -> None:
    desk.execute("UPDATE plugin_set SET generation = 3")
    problem = {"plugin": "stamping", "source": f"{NAME} 1.0", "error": "This machine lacks <x>.", "traceback": "T1"}
    hearts.beat("work left 1", "work", 3)
    hearts.beat("work right 2", "work", 2, [problem])
    page = viewer.get("/plugins/")
    said = words(page)
    assert re.search(r"1 of \d processes has not taken up the plugins as they are now: work right 2\.", said)
    assert "This machine lacks <x>. Only in work right 2." in said and "<x>" not in page
    assert "work right 2 2 of 3 stamping" in said
    hearts.beat("work right 2", "work", 3)
    said = words(viewer.get("/plugins/"))
    assert re.search(r"All \d processes of the last minute have the plugins as they are now \(set 3\)", said)


def test_the_settings_of_a_plugins_own_are_changed_by_admins(
    admin: Visitor, operator: Visitor, viewer: Visitor
) -> None:
    at = "/plugins/limits/settings"
    said = words(viewer.get("/plugins/limits/"))
    assert "Its own settings most_records not set The most records that a run may be over." in said
    assert at not in operator.get("/plugins/limits/") and at in admin.get("/plugins/limits/")
    operator.get(at, 403)
    assert operator.send(at, **{"set-most_records": "1"}).status_code == 403
    form = fields(admin.get(at))
    assert "Nothing was changed." in admin.post(at, **form)
    page = admin.send(at, **form | {"set-most_records": "none", "set-most_cost_usd": "12.50"}).text
    assert 'id="set-most_records-faults"' in page and fields(page)["set-most_cost_usd"] == "12.50"
    page = admin.post(at, **form | {"set-most_records": "500", "set-refuse_unknown_cost": "true"})
    said = words(page)
    assert "The settings of limits are changed." in said and "most_records 500 " in said
    assert "Settings changed: most_records = 500, refuse_unknown_cost = true." in said
    admin.get("/plugins/classify/settings", 404)
    admin.get("/plugins/nothing-like-it/settings", 404)


def test_settings_that_are_no_use_any_more_are_told_and_a_secret_is_named_not_shown(
    admin: Visitor, desk: DeskDriver, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    source = (
        "from pydantic import BaseModel, Field\nfrom webapp.hooks import Secret, hookimpl\n"
        "class Settings(BaseModel):\n    key: Secret | None = Field(None, description='What opens it.')\n"
        "@hookimpl\ndef check_run(run, settings):\n    return None\n"
    )
    (tmp_path / "mine" / "gate.py").write_text(source)
    desk.desk.registry = load_plugins(folder=tmp_path / "mine", entry_points=False)
    at = "/plugins/gate/settings"
    assert "What opens it. A secret: write env:NAME" in words(admin.get(at))
    page = admin.send(at, **{"set-key": "hunter2"}).text
    assert "write env:NAME" in words(page)
    assert "key env:GATE_KEY" in words(admin.post(at, **{"set-key": "env:GATE_KEY"}))
    with db.transaction() as tx:
        db.run(tx, """UPDATE plugin_settings SET settings = '{"key": "open"}'""")
    said = words(admin.get("/plugins/gate/"))
    assert "The settings that are stored are no use to it" in said and "key not shown, for it may be" in said
