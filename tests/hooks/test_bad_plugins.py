"""The zoo: one bad plugin of each kind, made as a file, beside a good one that must go on working."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from webapp.hooks import PluginProblem, load_plugins

GOOD = """
from webapp.hooks import ModelSettings, Task, hookimpl

class {cls}(Task[ModelSettings]):
    name = "{name}"
    Settings = ModelSettings

    def shared_params(self, settings):
        return settings.base_params()

    def request_params(self, subject, settings):
        return {{"messages": [{{"role": "user", "content": subject.require_text()}}]}}

    def process(self, subject, message, settings):
        return message.text

@hookimpl
def register_tasks():
    return [{cls}()]
"""
BASE = GOOD.format(cls="Base", name="base").replace("@hookimpl\ndef register_tasks():\n    return [Base()]\n", "")


def problem_of(folder: Path, code: str | bytes) -> PluginProblem:
    """Loads the bad plugin beside a good one; the good one works and the bad one is the only problem."""
    (folder / "good.py").write_text(GOOD.format(cls="Good", name="good"))
    bad = folder / "bad.py"
    bad.write_bytes(code if isinstance(code, bytes) else code.encode())
    registry = load_plugins(folder=folder, entry_points=False)
    assert list(registry.tasks) == ["good"]
    [problem] = registry.problems
    assert problem.plugin == "bad"
    assert problem.source == str(bad)
    assert problem.error.startswith(f"Plugin 'bad' ({bad}) is left out. ")
    return problem


def registering(expression: str) -> str:
    return f"{BASE}\n@hookimpl\ndef register_tasks():\n    return {expression}\n"


def subclass(body: str) -> str:
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"{BASE}\nclass Bad(Base):\n{lines}\n@hookimpl\ndef register_tasks():\n    return [Bad()]\n"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def register_tasks(:\n", "SyntaxError"),
        (b"x = '\xff'\n", "SyntaxError"),
        (b"x = 1\0\n", "source code string cannot contain null bytes"),  # its class differs by Python's version
        ("import no_such_module_anywhere\n", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("def again(): again()\nagain()\n", "RecursionError"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_left_out_with_its_traceback(
    tmp_path: Path, code: str | bytes, words: str
) -> None:
    problem = problem_of(tmp_path, code)
    assert "It cannot be imported: " in problem.error
    assert words in problem.error
    assert "Traceback" in problem.traceback or "SyntaxError" in problem.traceback
    assert "batchdesk_plugin_bad" not in sys.modules


def test_ctrl_c_during_an_import_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load_plugins(folder=tmp_path, entry_points=False)


def test_a_plugin_without_a_hook_is_told_about_hookimpl(tmp_path: Path) -> None:
    code = registering("[Base()]").replace("@hookimpl\n", "")
    assert "Put @hookimpl before a function" in problem_of(tmp_path, code).error


def test_a_misspelled_hook_is_named_with_the_closest_one(tmp_path: Path) -> None:
    code = registering("[Base()]").replace("register_tasks", "register_task")
    error = problem_of(tmp_path, code).error
    assert "There is no hook 'register_task'. Did you mean 'register_tasks'?" in error


def test_a_hook_with_an_argument_it_is_not_given_is_refused(tmp_path: Path) -> None:
    code = registering("[Base()]").replace("register_tasks()", "register_tasks(app)")
    error = problem_of(tmp_path, code).error
    assert "another signature" in error
    assert "app" in error


def test_a_hook_that_raises_is_shown_with_its_traceback(tmp_path: Path) -> None:
    problem = problem_of(tmp_path, registering("[Base()][7]"))
    assert "Its hook register_tasks failed: IndexError: list index out of range." in problem.error
    assert "bad.py" in problem.traceback


def test_a_hook_that_raises_while_its_tasks_are_taken_out_is_shown(tmp_path: Path) -> None:
    code = registering("None").replace("return None", "yield Base()\n    raise OSError('gone')")
    assert "OSError: gone" in problem_of(tmp_path, code).error


def test_a_hook_that_exits_is_left_out(tmp_path: Path) -> None:
    assert "SystemExit" in problem_of(tmp_path, registering("exit(1)")).error


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("None", "register_tasks returned None"),
        ("[]", "register_tasks returned no tasks"),
        ("Base()", "returned a task, not a list of tasks"),
        ("7", "returned an int, not a list of tasks"),
        ("'base'", "returned a str, not a list of tasks"),
        ("{'base': Base()}", "returned a dict, not a list of tasks"),
        ("[Base]", "returned the class Base: return [Base()]."),
        ("['base']", "returned a str, which is no Task"),
        ("[Base(), None]", "returned a NoneType, which is no Task"),
        ("[Base(), Base()]", "two tasks with the name 'base'"),
    ],
)
def test_a_hook_that_returns_no_list_of_tasks_is_left_out(tmp_path: Path, expression: str, words: str) -> None:
    assert words in problem_of(tmp_path, registering(expression)).error


def test_an_asynchronous_hook_is_refused(tmp_path: Path) -> None:
    code = registering("[Base()]").replace("def register_tasks", "async def register_tasks")
    assert "write it with def, not async def" in problem_of(tmp_path, code).error


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("name = ''", "class Bad has no name"),
        ("name = None", "class Bad has no name"),
        ("name = 'Bad Name'", "has the name 'Bad Name': use a lower-case letter"),
        ("name = '1st'", "has the name '1st'"),
        ("name = 'a' * 65", "at most 64"),
        ("title = ' '", "has the title ' '"),
        ("version = 1", "has the version 1: it must be text"),
        ("subject_kinds = 'document'", "give a tuple, like ('document',), with its comma"),
        ("subject_kinds = ()", "has no subject_kinds"),
        ("subject_kinds = (1,)", "has the subject_kinds (1,)"),
        ("Settings = dict", "has no usable Settings"),
        ("Settings = ModelSettings()", "has no usable Settings"),
        ("def process(self, subject, message): return None", "write def process(self, subject, message, settings)"),
        ("def shared_params(self): return {}", "write def shared_params(self, settings)"),
        ("def request_params(self, a, b, c): return {}", "write def request_params(self, subject, settings)"),
        ("request_params = None", "request_params cannot be called"),
        ("async def process(self, subject, message, settings): return 1", "process is asynchronous"),
    ],
)
def test_a_task_that_breaks_the_contract_is_left_out(tmp_path: Path, body: str, words: str) -> None:
    assert words in problem_of(tmp_path, subclass(body)).error


@pytest.mark.parametrize("method", ["shared_params", "request_params", "process"])
def test_a_task_without_a_method_is_left_out(tmp_path: Path, method: str) -> None:
    body = f"from webapp.hooks import Task as T\n{method} = T.{method}"
    assert f"lacks the method {method}(self, " in problem_of(tmp_path, subclass(body)).error


def test_a_task_without_settings_is_left_out(tmp_path: Path) -> None:
    code = registering("[Base()]").replace("    Settings = ModelSettings\n", "")
    assert "has no usable Settings" in problem_of(tmp_path, code).error


def test_settings_that_no_form_can_be_drawn_from_are_refused(tmp_path: Path) -> None:
    body = "class Settings(ModelSettings):\n    back: __import__('typing').Callable[[], int] = int"
    assert "no form can be drawn from its Settings" in problem_of(tmp_path, subclass(body)).error


def test_a_plugin_whose_attributes_raise_is_left_out(tmp_path: Path) -> None:
    code = registering("[Base()]") + "\ndef __getattr__(name):\n    raise RuntimeError(name)\n"
    assert "RuntimeError" in problem_of(tmp_path, code).error


def test_a_plugin_for_another_version_of_the_contract_is_told_so(tmp_path: Path) -> None:
    error = problem_of(tmp_path, "api_version = 99\n" + registering("[Base()]")).error
    assert "asks for version 99 of the plugin contract, and this Batchdesk speaks 1" in error


def test_a_taken_task_name_names_both_owners(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(GOOD.format(cls="One", name="mine"))
    (tmp_path / "two.py").write_text(GOOD.format(cls="Two", name="mine"))
    registry = load_plugins(folder=tmp_path, entry_points=False)
    assert [plugin.name for plugin in registry.plugins] == ["one"]
    [problem] = registry.problems
    assert problem.plugin == "two"
    assert f"clashes with the one of plugin 'one' ({tmp_path / 'one.py'})" in problem.error


def test_nobody_takes_the_name_of_a_shipped_task(tmp_path: Path) -> None:
    (tmp_path / "aaa.py").write_text(GOOD.format(cls="Mine", name="classify"))
    (tmp_path / "classify.py").write_text(GOOD.format(cls="Shipped", name="classify"))
    registry = load_plugins(folder=tmp_path, entry_points=False)
    assert type(registry.task("classify")).__name__ == "Shipped"
    assert [problem.plugin for problem in registry.problems] == ["aaa"]
