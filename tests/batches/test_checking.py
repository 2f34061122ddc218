"""Plugins are asked before anything of a run is sent; what refuses, breaks or cannot be asked pauses it, by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox

from webapp import PLUGINS, wishes
from webapp.batches import bounded, sharding
from webapp.batches.naming import new_token
from webapp.batches.states import FailureClass
from webapp.hooks import load_plugins

GUARD = """
import os, pathlib, time
from pydantic import BaseModel
from webapp.hooks import hookimpl

HERE = pathlib.Path(__file__).parent


class Settings(BaseModel):
    most: int = 0


@hookimpl
def check_run(run, settings):
    with open(HERE / "asked", "a") as asked:
        asked.write(f"{run.id} {run.subjects} {run.requests} {run.task} {run.model} {run.owner}\\n")
    what = (HERE / "do").read_text() if (HERE / "do").exists() else "return None"
    scope = dict(globals(), run=run, settings=settings)
    exec("def f():\\n    " + what + "\\nanswer = f()", scope)
    return scope["answer"]
"""


class Guard:
    """A plugin that does to runs what its test says."""

    def __init__(self, desk: DeskDriver, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        shutil.copy(PLUGINS / "classify.py", folder)
        shutil.copytree(PLUGINS / "prompts", folder / "prompts")
        desk.use_plugin(folder, GUARD)

    def does(self, code: str) -> None:
        (self.folder / "do").write_text(code)

    @property
    def asked(self) -> list[str]:
        found = self.folder / "asked"
        return found.read_text().splitlines() if found.exists() else []


@pytest.fixture
def guard(desk: DeskDriver, tmp_path: Path) -> Guard:
    return Guard(desk, tmp_path / "plugins")


def test_a_run_that_nobody_minds_is_asked_about_once_and_sent(desk: DeskDriver, sandbox: Sandbox, guard: Guard) -> None:
    run_id = desk.run(documents(4))

    assert desk.status(run_id).state == "finished"
    assert guard.asked == [f"{run_id} 4 4 classify claude-haiku-5-5 tester"]
    audit(desk, sandbox)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("return f'{run.subjects} are too many.'", "Plugin 'testing' refuses this run: 3 are too many."),
        ("raise ValueError('no such host')", "Plugin 'testing': check_run raised ValueError: no such host"),
        ("raise SystemExit(0)", "Plugin 'testing': check_run raised SystemExit: 0"),
        ("return False", "Plugin 'testing': check_run answered False, which is neither a sentence nor None."),
        ("return ' '", "Plugin 'testing': check_run answered ' ', which is"),
        ("os._exit(7)", "Plugin 'testing': check_run ended its process 2 times (exit status 7)."),
        ("return 'x' * (1 << 31)", "Plugin 'testing': check_run needed more than"),
        ("time.sleep(1000)", "Plugin 'testing': check_run did not come back within 2 seconds."),
    ],
)
def test_a_run_that_is_refused_or_cannot_be_checked_waits_and_nothing_is_sent(
    desk: DeskDriver, sandbox: Sandbox, guard: Guard, monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    if "sleep" in code:
        monkeypatch.setattr(bounded, "WALL_SECONDS", 2.0)
    guard.does(code)
    run_id = desk.run(documents(3))

    status = desk.status(run_id)
    assert status.state == "paused" and (status.reason or "").startswith(words)
    assert desk.states() == [] and sandbox.accepted() == []

    guard.does("return None")
    wishes.ask_resume(run_id, actor="ann")
    assert desk.work_until_over(run_id).state == "finished"
    assert len(sandbox.accepted()) == 3
    audit(desk, sandbox)


def test_resume_asks_again_and_plans_nothing_twice(desk: DeskDriver, sandbox: Sandbox, guard: Guard) -> None:
    guard.does("return 'Not today.'")
    run_id = desk.run(documents(3))
    built = desk.rows("SELECT id FROM items ORDER BY id")
    wishes.ask_resume(run_id, actor="ann")
    desk.work_until_over(run_id)

    assert desk.status(run_id).state == "paused" and len(guard.asked) == 2
    assert desk.rows("SELECT id FROM items ORDER BY id") == built
    moves = desk.rows("SELECT actor, to_state FROM events WHERE kind = 'move' AND run_id = :id ORDER BY id", id=run_id)
    assert [tuple(move) for move in moves] == [("check", "paused"), ("ann", "planning"), ("check", "paused")]


def test_a_run_that_is_refused_can_be_cancelled(desk: DeskDriver, sandbox: Sandbox, guard: Guard) -> None:
    guard.does("return 'Not today.'")
    run_id = desk.run(documents(3))
    wishes.ask_cancel_run(run_id, actor="ann")
    desk.work_until_over(run_id)

    assert desk.status(run_id).state == "cancelled"
    assert [row.status for row in desk.outputs(run_id)] == ["stopped"] * 3
    audit(desk, sandbox)


def test_a_worker_that_dies_while_it_cuts_goes_on_without_asking_again(
    desk: DeskDriver, sandbox: Sandbox, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was let go is let go: some of it may be sent already."""
    desk.change(batch_max_requests=2)
    run_id = desk.start(documents(5))

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(sharding, "due", killed)
        with pytest.raises(Killed):
            desk.perform("plan", run_id)
    guard.does("return 'Not today.'")
    desk.lapse()

    assert desk.work_until_over(run_id).state == "finished"
    assert len(guard.asked) == 1
    audit(desk, sandbox)


def test_a_pause_and_a_resume_of_a_run_under_way_ask_nobody(desk: DeskDriver, guard: Guard) -> None:
    run_id = desk.start(documents(3))
    desk.perform("plan", run_id)
    guard.does("return 'Not today.'")
    wishes.ask_pause(run_id, actor="ann")
    wishes.ask_resume(run_id, actor="ann")

    assert desk.work_until_over(run_id).state == "finished"
    assert len(guard.asked) == 1


def test_a_child_run_is_asked_about_and_a_resubmission_is_not(desk: DeskDriver, sandbox: Sandbox, guard: Guard) -> None:
    sandbox.configure(errored_share=1.0)
    run_id = desk.run(documents(3))
    sandbox.configure(errored_share=0)
    guard.does("return 'Not today.'")
    assert wishes.ask_resubmit(run_id, list(FailureClass), actor="ann") == 3
    assert desk.work_until_over(run_id).state == "finished"

    child = wishes.ask_rebuild(run_id, None, {"labels": "alpha,beta"}, actor="ann", token=new_token())
    assert desk.work_until_over(child.run_id).state == "paused"
    assert len(guard.asked) == 2


def test_settings_that_the_plugin_takes_no_longer_are_told_and_nothing_is_sent(desk: DeskDriver, guard: Guard) -> None:
    wishes.ask_configure("testing", {"most": "3"}, actor="ann")
    desk.use_plugin(guard.folder, GUARD.replace("most: int", "least: int"))
    run_id = desk.run(documents(2))

    reason = desk.status(run_id).reason or ""
    assert "'most' is unknown" in reason and "batchdesk plugins set testing" in reason
    assert guard.asked == []


def test_a_check_that_somebody_set_up_and_that_cannot_be_loaded_refuses(desk: DeskDriver, guard: Guard) -> None:
    wishes.ask_configure("testing", {"most": "3"}, actor="ann")
    (guard.folder / "testing.py").write_text("import nothing_like_this")
    desk.desk.registry = load_plugins(folder=guard.folder, entry_points=False)
    assert len(desk.desk.registry.problems) == 1
    run_id = desk.run(documents(2))

    reason = desk.status(run_id).reason or ""
    assert "Plugin 'testing' checks runs and cannot be asked." in reason and "nothing_like_this" in reason


def test_a_run_that_a_person_paused_meanwhile_is_asked_about_when_it_is_resumed(desk: DeskDriver, guard: Guard) -> None:
    run_id = desk.start(documents(2))
    guard.does("return 'Not today.'")
    wishes.ask_pause(run_id, actor="ann")
    desk.perform_due()
    wishes.ask_resume(run_id, actor="ann")
    desk.work_until_over(run_id)

    assert desk.status(run_id).state == "paused" and "Not today" in (desk.status(run_id).reason or "")
