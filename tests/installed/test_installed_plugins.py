"""Installed plugins in use: each run keeps to the version it names, whatever becomes of the plugin meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.audit import audit
from support.desk import DeskDriver, documents
from support.plugin_wheels import NAME, SOURCE, file_name, unloaded, wheel
from support.sandbox import Sandbox

from webapp import wishes
from webapp.batches.naming import new_token
from webapp.batches.reprocessing import Which
from webapp.db import transaction
from webapp.errors import InputError, NotFound, PluginError, Refused
from webapp.installed import installing, overview
from webapp.packages import wheels
from webapp.runs.staleness import Over
from webapp.settings import PluginInstall


@pytest.fixture(autouse=True)
def own_home(desk: DeskDriver, tmp_path: Any) -> Iterator[None]:
    """Wheels are unpacked in the test's own folder, and nothing of them is left in this process."""
    desk.change(home=tmp_path / "home", plugin_install=PluginInstall.WEB)
    with unloaded("stamping", "other"):
        yield


def put(desk: DeskDriver, version: str, *, upgrade: bool = False, **changes: Any) -> int:
    """Install a version as the command line does."""
    found = wheels.read(wheel(version, **changes), file_name(version, changes.get("name", NAME)))
    installing.check(desk.desk, found)
    brings = installing.tried(desk.desk, found)
    made = wishes.ask_plugin_put(found, brings, actor="tester", upgrade=upgrade)
    desk.desk.take_up()
    return made


def start(desk: DeskDriver, records: int = 3) -> int:
    """A run of the installed task over a dataset of its own, as the dashboard starts it."""
    other = desk.start(documents(records))
    wishes.ask_cancel_run(other, actor="tester")
    dataset = desk.scalar("SELECT dataset_id FROM runs WHERE id = :id", id=other)
    return wishes.ask_start(dataset, "stamp", {}, over=Over.ALL, actor="tester", token=new_token())


def stamps(desk: DeskDriver, run_id: int) -> set[str]:
    """The versions that have made a run's outputs."""
    return {json.loads(row.output_json or "{}").get("version") for row in desk.outputs(run_id)}


def events(desk: DeskDriver) -> list[tuple[str, str]]:
    return [
        (one.actor, one.reason)
        for one in desk.rows("SELECT actor, reason FROM events WHERE target_kind = 'plugin' ORDER BY id")
    ]


def test_a_run_in_flight_keeps_its_version_while_others_are_installed_rolled_back_and_removed(
    desk: DeskDriver, sandbox: Sandbox
) -> None:
    first = put(desk, "1.0")
    old = start(desk)
    desk.perform_until("in_progress")
    second = put(desk, "2.0", upgrade=True)
    new = start(desk)
    assert desk.rows("SELECT plugin_version_id FROM runs WHERE id IN (:a, :b) ORDER BY id", a=old, b=new) == [
        (first,),
        (second,),
    ]
    desk.work_until_over(old)
    desk.work_until_over(new)
    assert (stamps(desk, old), stamps(desk, new)) == ({"1.0"}, {"2.0"})

    assert wishes.ask_plugin_rollback(NAME, actor="ada") == "1.0"
    desk.desk.take_up()
    again = start(desk)
    assert wishes.ask_plugin_remove(NAME, actor="ada") == [again]
    desk.desk.take_up()
    assert "stamp" not in desk.desk.registry.tasks
    desk.work_until_over(again)
    assert stamps(desk, again) == {"1.0"}
    told = [words for actor, words in events(desk) if actor == "ada"]
    assert told == [
        "Rolled back from version 2.0 to 1.0.",
        f"Removed; it was at version 1.0. Kept for run {again} until they are over.",
    ]
    audit(desk, sandbox)


def test_the_wheel_of_a_removed_plugin_goes_when_no_run_needs_it(desk: DeskDriver) -> None:
    put(desk, "1.0")
    run_id = start(desk)
    wishes.ask_plugin_remove(NAME, actor="ada")
    assert desk.scalar("SELECT count(wheel) FROM plugin_versions") == 1
    desk.work_until_over(run_id)
    put(desk, "1.0", name="batchdesk-other", module="other", source=SOURCE.replace('"stamp"', '"other"'))
    kept = desk.rows("SELECT name FROM plugin_versions WHERE wheel IS NOT NULL")
    assert kept == [("batchdesk-other",)]


def test_a_run_of_a_plugin_that_is_gone_says_so_and_goes_on_with_what_is_installed_again(desk: DeskDriver) -> None:
    put(desk, "1.0")
    run_id = start(desk)
    desk.perform_until("done")
    desk.execute("UPDATE plugin_versions SET removed_at = now(), wheel = NULL")
    desk.execute("DELETE FROM plugins")
    desk.execute("UPDATE plugin_set SET generation = generation + 1")
    desk.desk.take_up()
    status = desk.work_until_over(run_id)
    assert status.state == "paused"
    assert f"It needs version 1.0 of plugin '{NAME}', which was removed and is not kept any more." in (
        status.reason or ""
    )
    put(desk, "2.0")
    wishes.ask_resume(run_id, actor="tester")
    desk.work_until_over(run_id)
    assert stamps(desk, run_id) == {"2.0"}


def test_answers_are_processed_again_with_the_version_in_use(desk: DeskDriver) -> None:
    put(desk, "1.0")
    run_id = start(desk)
    desk.work_until_over(run_id)
    put(desk, "2.0", upgrade=True)
    wishes.ask_reprocess(run_id, Which.ALL, version="2.0", actor="tester")
    desk.work_until_over(run_id)
    assert stamps(desk, run_id) == {"2.0"}


def test_a_disabled_plugin_starts_nothing_and_its_run_in_flight_finishes(desk: DeskDriver) -> None:
    put(desk, "1.0")
    run_id = start(desk)
    wishes.ask_plugin_enabled(NAME, False, actor="ada")
    with pytest.raises(Refused, match="was disabled meanwhile"):
        start(desk)
    desk.desk.take_up()
    with pytest.raises(NotFound, match="There is no task 'stamp'"):
        start(desk)
    desk.work_until_over(run_id)
    assert stamps(desk, run_id) == {"1.0"}
    put(desk, "2.0", upgrade=True)
    assert "stamp" not in desk.desk.registry.tasks, "an upgrade enables nothing"
    wishes.ask_plugin_enabled(NAME, True, actor="ada")
    desk.desk.take_up()
    assert desk.desk.registry.task("stamp").version == "2.0"


def test_a_shipped_plugin_is_disabled_for_new_runs_alone(desk: DeskDriver) -> None:
    run_id = desk.start(documents(2))
    wishes.ask_plugin_enabled("classify", False, actor="ada")
    desk.desk.take_up()
    assert "classify" not in desk.desk.registry.tasks
    desk.work_until_over(run_id)
    assert desk.summary(run_id).succeeded == 2
    with transaction() as tx:
        assert [one.name for one in overview.disabled(tx)] == ["classify"]
    with pytest.raises(Refused, match="disabled already"):
        wishes.ask_plugin_enabled("classify", False, actor="ada")
    with pytest.raises(NotFound, match="no plugin 'nobody'"):
        wishes.ask_plugin_enabled("nobody", False, actor="ada")


def test_what_is_installed_is_loaded_nowhere_when_that_is_off(desk: DeskDriver) -> None:
    put(desk, "1.0")
    run_id = start(desk)
    desk.change(plugin_install=PluginInstall.OFF)
    desk.desk.take_up()
    assert "stamp" not in desk.desk.registry.tasks
    status = desk.work_until_over(run_id)
    assert status.state == "paused" and "(BATCHDESK_PLUGIN_INSTALL=off)" in (status.reason or "")
    with pytest.raises(Refused, match="Installing plugins is off"):
        wishes.ask_plugin_remove(NAME, actor="ada")


@pytest.mark.parametrize("gate", [PluginInstall.OFF, PluginInstall.CLI])
def test_nothing_is_installed_from_the_dashboard_where_that_is_not_let_through(
    desk: DeskDriver, gate: PluginInstall
) -> None:
    put(desk, "1.0")
    desk.change(plugin_install=gate)
    for ask in (
        lambda: wishes.ask_plugin_fetch("anything", actor="ada"),
        lambda: wishes.ask_plugin_install(1, actor="ada"),
        lambda: wishes.ask_plugin_rollback(NAME, actor="ada"),
        lambda: wishes.ask_plugin_remove(NAME, actor="ada"),
    ):
        with pytest.raises(Refused, match="BATCHDESK_PLUGIN_INSTALL"):
            ask()
    wishes.ask_plugin_enabled(NAME, False, actor="ada")
    with pytest.raises(Refused, match="BATCHDESK_PLUGIN_INSTALL"):
        wishes.ask_plugin_enabled(NAME, True, actor="ada")
    wishes.ask_plugin_enabled("classify", False, actor="ada")
    wishes.ask_plugin_enabled("classify", True, actor="ada")


def test_what_was_put_first_stays_and_changes_that_make_no_sense_are_refused(desk: DeskDriver) -> None:
    put(desk, "1.0")
    with pytest.raises(Refused, match=r"installed already, in version 1\.0: upgrade it"):
        put(desk, "2.0")
    with pytest.raises(Refused, match="already, from the same wheel"):
        put(desk, "1.0", upgrade=True)
    with pytest.raises(Refused, match="no former version"):
        wishes.ask_plugin_rollback(NAME, actor="ada")
    with pytest.raises(Refused, match=f"brings the module 'stamping', which the installed plugin '{NAME}' 1.0"):
        put(desk, "1.0", name="batchdesk-other")
    with pytest.raises(Refused, match="not installed, so it cannot be upgraded"):
        put(desk, "1.0", upgrade=True, name="batchdesk-other", module="other", source=SOURCE.replace('"stamp"', '"b"'))
    with pytest.raises(InputError, match="There is a plugin 'classify' already"):
        put(desk, "1.0", name="classify", module="other")
    with pytest.raises(PluginError, match="Its name 'classify' is that of another plugin"):
        put(desk, "1.0", name="batchdesk-other", module="other", source=SOURCE.replace('"stamp"', '"b"'),
            entry_points="[batchdesk.plugins]\nclassify = other\n")  # fmt: skip
    with pytest.raises(NotFound, match="'nobody' is not installed"):
        wishes.ask_plugin_remove("nobody", actor="ada")


def test_a_requirement_that_one_machine_lacks_is_named_there_and_the_rest_is_loaded(desk: DeskDriver) -> None:
    put(desk, "1.0")
    needs = "jsonb_set(about::jsonb, '{requires}', '[\"no-such-library>=2\"]')::json"
    desk.execute(f"UPDATE plugin_versions SET about = {needs}")
    registry = desk.desk.take_up().registry
    (problem,) = registry.problems
    assert (problem.plugin, problem.source) == ("stamping", f"{NAME} 1.0")
    assert "This machine lacks what it needs: no-such-library>=2, which is not there." in problem.error
    assert "classify" in registry.tasks


# -- asked for from the dashboard --------------------------------------------------------------------------------


def test_an_uploaded_wheel_is_shown_before_it_runs_and_installed_when_it_is_confirmed(desk: DeskDriver) -> None:
    touching = SOURCE + "\nopen({path!r}, 'a').close()\n"
    trace = desk.desk.settings.home.parent / "it-ran"
    content = wheel(source=touching.replace("{path!r}", repr(str(trace))))
    install_id = wishes.ask_plugin_fetch(file_name(), content=content, actor="ada")
    desk.perform_due()
    with transaction() as tx:
        shown = overview.install(tx, install_id)
    assert (shown.state, shown.name, shown.version, shown.present) == ("waiting", NAME, "1.0", None)
    assert shown.about["hooks"] == ["register_tasks"] and shown.about["summary"] == "Stamps each record."
    assert not trace.exists()

    wishes.ask_plugin_install(install_id, actor="ada")
    desk.perform_due()
    with transaction() as tx:
        shown = overview.install(tx, install_id)
        (installed,) = overview.installed(tx)
    assert (shown.state, shown.version_id, shown.size) == ("installed", installed.version_id, None)
    assert installed.changed_by == "ada" and installed.about["brings"][0]["tasks"][0]["name"] == "stamp"
    assert trace.exists()
    assert "stamp" in desk.desk.take_up().registry.tasks
    with pytest.raises(Refused, match="is installed"):
        wishes.ask_plugin_drop(install_id, actor="ada")


def test_a_plugin_that_does_not_load_is_refused_with_its_traceback(desk: DeskDriver) -> None:
    content = wheel(source=SOURCE.replace("return [Stamp()]", "return [Stamp()][7]"))
    install_id = wishes.ask_plugin_fetch(file_name(), content=content, actor="ada")
    desk.perform_due()
    wishes.ask_plugin_install(install_id, actor="ada")
    desk.perform_due()
    with transaction() as tx:
        shown = overview.install(tx, install_id)
        assert overview.installed(tx) == []
    assert shown.state == "refused" and "Its hook register_tasks failed: IndexError" in shown.reason
    assert "stamping.py" in shown.traceback


def test_what_is_no_plugin_is_refused_before_anybody_is_asked(desk: DeskDriver) -> None:
    content = wheel(entry_points="[console_scripts]\nx = stamping:x\n")
    install_id = wishes.ask_plugin_fetch(file_name(), content=content, actor="ada")
    desk.perform_due()
    with transaction() as tx:
        (shown,) = overview.installs(tx)
    assert shown.state == "refused" and "no entry point in the group batchdesk.plugins" in shown.reason
    with pytest.raises(Refused, match="nothing to confirm"):
        wishes.ask_plugin_install(install_id, actor="ada")
    for wanted in ("https://example.com/x.whl", "-r requirements.txt", "../folder", "name @ file:///x", "x[extra]"):
        with pytest.raises(InputError, match="is no package"):
            wishes.ask_plugin_fetch(wanted, actor="ada")
    with pytest.raises(InputError, match="Choose a wheel"):
        wishes.ask_plugin_fetch("x.zip", content=b"", actor="ada")


def test_a_dropped_installation_is_over(desk: DeskDriver) -> None:
    install_id = wishes.ask_plugin_fetch(file_name(), content=wheel(), actor="ada")
    wishes.ask_plugin_drop(install_id, actor="ada")
    desk.perform_due()
    with transaction() as tx:
        assert overview.install(tx, install_id).state == "dropped"
    assert desk.scalar("SELECT count(*) FROM plugin_versions") == 0


def test_health_tells_runs_failures_and_the_last_error(desk: DeskDriver) -> None:
    source = SOURCE.replace(
        'return {{"version"', "if subject.key == 'doc-1': raise ValueError('no one')\n        return {{\"version\""
    )
    put(desk, "1.0", source=source)
    run_id = start(desk, records=4)
    desk.work_until_over(run_id)
    with transaction() as tx:
        health = overview.health(tx)["stamp"]
    assert (health.runs, health.outputs, health.invalid, health.failure_rate) == (1, 4, 1, 0.25)
    assert "ValueError: no one" in (health.error or "") and health.error_run_id == run_id
