"""`plugins new` and `plugins check`: what people and scripts see, and how they end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.command_line import CommandLine
from support.installation import Finished
from support.plugin_wheels import wheel, write

from webapp import PLUGINS
from webapp.cli.plugins import plugins
from webapp.hooks import load_plugins

BAD = """
from webapp.hooks import ModelSettings, Task, hookimpl

class Bad(Task[ModelSettings]):
    name = "bad"
    Settings = ModelSettings
    def shared_params(self, settings):
        raise OSError("nothing here")
    def request_params(self, subject, settings):
        return {}
    def process(self, subject, message, settings):
        return None

@hookimpl
def register_tasks():
    return [Bad()]
"""


def seen(done: Finished) -> dict[str, Any]:
    return dict(json.loads(done.out))


def test_every_shipped_plugin_keeps_the_contract(bare: CommandLine) -> None:
    done = bare("plugins", "check", "--json")
    found = seen(done)
    assert (done.status, found["problems"]) == (0, 0), [one for one in found["findings"] if one["level"] == "problem"]
    tried = {one["about"] for one in found["findings"] if "process is pure" in one["words"]}
    assert tried == {f"task {name}" for name in load_plugins(folder=PLUGINS).tasks}


def test_a_new_package_is_written_where_one_stands_and_passes_the_check(bare: CommandLine) -> None:
    made = bare("plugins", "new", "ticket_mood")
    assert made.status == 0
    assert made.out.splitlines()[0] == "batchdesk-ticket-mood/batchdesk_ticket_mood.py"
    assert "batchdesk plugins check ." in made.err
    assert bare("plugins", "new", "ticket_mood").status == 2
    checked = bare("plugins", "check", "batchdesk-ticket-mood")
    assert (checked.status, checked.err) == (0, "no problems, 1 warning.\n")
    assert checked.out.startswith("ok       plugin ticket_mood: it loads; hooks: register_tasks.\n")


def test_a_folder_is_named_for_a_new_package(bare: CommandLine) -> None:
    assert bare("plugins", "new", "mood", "--folder", "here/now").status == 0
    assert (bare.folder / "here" / "now" / "batchdesk_mood.py").is_file()


def test_a_problem_ends_the_check_with_status_2_and_a_line_of_the_plugin(bare: CommandLine) -> None:
    path = bare.folder / "bad.py"
    path.write_text(BAD)
    done = bare("plugins", "check", path)
    assert done.status == 2
    assert "problem  task bad: Task 'bad': shared_params raised OSError: nothing here" in done.out
    assert f"({path}, line 8)" in done.out
    assert done.err == "1 problem, no warnings.\n"


@pytest.mark.parametrize(("labels", "status"), [("only", 2), ("spam,ham", 0)])
def test_settings_are_given_as_for_a_run(bare: CommandLine, labels: str, status: int) -> None:
    done = bare("plugins", "check", "classify", "--json", "--set", f"labels={labels}")
    assert done.status == status
    refused = [one["words"] for one in seen(done)["findings"] if one["level"] == "problem"]
    assert all("give at least two labels" in words for words in refused) and len(refused) == status / 2


def test_a_task_for_records_of_its_own_is_tried_with_records_that_are_given(bare: CommandLine) -> None:
    path = bare.folder / "leads.py"
    reading = 'return {"messages": [{"role": "user", "content": subject.data["company"]}]}'
    wanting = '{"model": "claude-haiku-5-5", "max_tokens": 99, "system": "Is it a bank?"}'
    code = BAD.replace('raise OSError("nothing here")', f"return {wanting}").replace("return {}\n", f"{reading}\n")
    path.write_text(code)
    done = bare("plugins", "check", path)
    assert done.status == 2 and "request_params raised KeyError: 'company'" in done.out
    records = bare.write("leads.jsonl", {"key": "a", "text": "x", "company": "Acme"}, {"key": "b", "text": "y"})
    done = bare("plugins", "check", path, "--records", records)
    assert done.status == 0
    assert "warning  task bad: record 'b': request_params raised KeyError" in done.out
    assert "the sandbox takes its requests, and answers 1." in done.out


def test_safe_mode_checks_nothing_of_the_installation(bare: CommandLine) -> None:
    done = bare("plugins", "check", BATCHDESK_SAFE_MODE="1")
    assert (done.status, done.out, done.err) == (0, "", "no problems, no warnings.\n")


def test_each_command_of_the_kit_is_there() -> None:
    assert {"list", "new", "check"} <= set(plugins.commands)


def test_an_installed_plugin_is_checked_by_its_name_or_its_packages(line: CommandLine) -> None:
    installed = line("plugins", "install", write(line.folder, wheel()), "--yes")
    assert installed.status == 0, installed.err
    for name in ("stamping", "batchdesk-stamp"):
        done = line("plugins", "check", name)
        assert "task stamp: process is pure" in done.out
        assert (done.status, done.err) == (0, "no problems, 1 warning.\n")
    missing = line("plugins", "check", "stampings")
    assert missing.status == 2 and "no plugin 'stampings'" in missing.err
