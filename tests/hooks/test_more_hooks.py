"""Sources, sinks, checks and news: what of them is loaded, and which faults leave their plugin out."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from webapp.errors import InputError, NotFound
from webapp.hooks import PluginProblem, Registry, RunFacts, Secret, load_plugins, reveal

GOOD = """
from pydantic import BaseModel, Field
from webapp.hooks import OutputRecord, Record, RunFacts, Secret, Sink, Source, hookimpl

class Settings(BaseModel):
    most: int = Field(default=10, ge=1)

class Where(BaseModel):
    folder: str = "here"

class Numbers(Source[Where]):
    name = "numbers"
    Settings = Where
    def records(self, settings):
        yield Record(key="1", data={"text": settings.folder})

class Pile(Sink[Where]):
    name = "pile"
    Settings = Where
    def deliver(self, run, outputs, settings, key):
        return None

@hookimpl
def register_sources():
    return [Numbers()]

@hookimpl
def register_sinks():
    return [Pile()]

@hookimpl
def check_run(run, settings):
    return f"over {settings.most}" if run.subjects > settings.most else None

@hookimpl
def on_run_finished(run, settings, key):
    raise OSError(key)
"""
RUN = RunFacts(1, "classify", "1", "letters", "ann@example.com", "planning", "claude-haiku-5-5", 11, 11, 1)


def load(folder: Path, **files: str) -> Registry:
    for name, code in files.items():
        (folder / f"{name}.py").write_text(code)
    return load_plugins(folder=folder, entry_points=False)


def problem(folder: Path, code: str) -> PluginProblem:
    registry = load(folder, bad=code)
    assert registry.plugins == ()
    [found] = registry.problems
    return found


def test_sources_sinks_checks_and_listeners_are_found(tmp_path: Path) -> None:
    registry = load(tmp_path, good=GOOD)
    assert registry.problems == ()
    [plugin] = registry.plugins
    assert plugin.hooks == ("check_run", "on_run_finished", "register_sinks", "register_sources")
    assert (plugin.tasks, plugin.sources, plugin.sinks) == ((), ("numbers",), ("pile",))
    assert [one.plugin for one in (*registry.checks, *registry.listeners)] == [plugin, plugin]
    assert registry.source("numbers").title == "Numbers"
    assert registry.sink("pile").title == "Pile"


def test_a_check_is_called_with_the_settings_of_its_plugin(tmp_path: Path) -> None:
    registry = load(tmp_path, good=GOOD)
    [check] = registry.checks
    assert check.plugin.settings is not None
    strict = registry.parse_settings(check.plugin.settings, {})
    loose = registry.parse_settings(check.plugin.settings, {"most": "11"})
    assert check.call(run=RUN, settings=strict) == "over 10"
    assert check.call(run=RUN, settings=loose) is None


def test_what_a_listener_raises_reaches_its_caller(tmp_path: Path) -> None:
    [listener] = load(tmp_path, good=GOOD).listeners
    with pytest.raises(OSError, match="delivery-1"):
        listener.call(run=RUN, settings=None, key="delivery-1")


def test_a_hook_may_leave_arguments_out(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        good=GOOD.replace("check_run(run, settings)", "check_run()").replace(
            'f"over {settings.most}" if run.subjects > settings.most else None', '"never"'
        ),
    )
    [check] = registry.checks
    assert check.call(run=RUN, settings=None) == "never"


def test_each_plugin_is_asked_for_itself(tmp_path: Path) -> None:
    other = GOOD.replace("numbers", "figures").replace("pile", "heap").replace("over {", "more than {")
    registry = load(tmp_path, one=GOOD, two=other)
    settings = registry.parse_settings(registry.plugins[0].settings or "", {})
    assert [check.call(run=RUN, settings=settings) for check in registry.checks] == ["over 10", "more than 10"]


def test_settings_of_a_source_name_the_source_in_their_faults(tmp_path: Path) -> None:
    registry = load(tmp_path, good=GOOD)
    with pytest.raises(InputError, match=r"Source 'numbers' cannot run(.|\n)*Did you mean 'folder'"):
        registry.parse_settings(registry.source("numbers"), {"folders": "x"})


def test_an_unknown_source_or_sink_names_the_known(tmp_path: Path) -> None:
    registry = load(tmp_path, good=GOOD)
    with pytest.raises(NotFound, match=r"There is no source 'number'\. Did you mean 'numbers'\?"):
        registry.source("number")
    with pytest.raises(NotFound, match="Known sinks: pile"):
        registry.sink("table")
    with pytest.raises(NotFound, match="There is no task 'classify': no plugin brings a task"):
        registry.task("classify")


@pytest.mark.parametrize(
    ("good", "bad", "words"),
    [
        ("return [Numbers()]", "return []", "register_sources returned no sources: return [YourSource()]"),
        ("return [Numbers()]", "return None", "register_sources returned None: return a list of sources"),
        ("return [Numbers()]", "return Numbers()", "returned a source, not a list of sources"),
        ("return [Numbers()]", "return [Numbers]", "returned the class Numbers: return [Numbers()]"),
        ("return [Numbers()]", "return [Pile()]", "returned a Pile, which is no Source: derive from Source"),
        ("return [Numbers()]", "return [Numbers(), Numbers()]", "two sources with the name 'numbers'"),
        ("return [Pile()]", "return [Numbers()]", "returned a Numbers, which is no Sink"),
        ("return [Pile()]", "return 'pile'", "register_sinks returned a str, not a list of sinks"),
        ("return [Pile()]", "raise OSError('gone')", "Its hook register_sinks failed: OSError: gone"),
        ('name = "pile"', 'name = "A Pile"', "Sink class Pile has the name 'A Pile'"),
        ('name = "numbers"', "kind = ''; name = 'numbers'", "Source 'numbers' has the kind ''"),
        ("def records(self, settings)", "def record(self, settings)", "lacks the method records(self, settings)"),
        ("def records(self, settings)", "async def records(self, settings)", "records is asynchronous"),
        (
            "def deliver(self, run, outputs, settings, key)",
            "def deliver(self, outputs)",
            "write def deliver(self, run,",
        ),
        ("class Where(BaseModel)", "class Where", "has no usable Settings"),
        ("def check_run(run, settings)", "def check_run(batch, settings)", "another signature"),
        ("def check_run(run, settings)", "async def check_run(run, settings)", "check_run is asynchronous"),
        ("    raise OSError(key)", "    yield key", "on_run_finished is a generator"),
        ("def check_run", "def check_runs", "There is no hook 'check_runs'. Did you mean 'check_run'?"),
        ("= Field(default=10, ge=1)", "", "The plugin's Settings have no default for most"),
        ("= Field(default=10, ge=1)", "= Field(default='x', validate_default=True)", "refuse their own defaults"),
        (
            "class Settings(BaseModel):\n    most: int = Field(default=10, ge=1)",
            "Settings = 7",
            "no usable Settings (7)",
        ),
    ],
)
def test_a_plugin_with_such_a_fault_is_left_out(tmp_path: Path, good: str, bad: str, words: str) -> None:
    assert good in GOOD
    assert words in problem(tmp_path, GOOD.replace(good, bad)).error


def test_a_taken_name_of_a_source_or_a_sink_names_both_owners(tmp_path: Path) -> None:
    one = GOOD.replace("pile", "heap")
    registry = load(tmp_path, one=one, two=GOOD, zoo=GOOD.replace("numbers", "figures").replace("pile", "heap"))
    assert [plugin.name for plugin in registry.plugins] == ["one"]
    sources, sinks = (problem.error for problem in registry.problems)
    assert f"Its source 'numbers' clashes with the one of plugin 'one' ({tmp_path / 'one.py'})" in sources
    assert "Its sink 'heap' clashes with the one of plugin 'one'" in sinks


def test_a_task_a_source_and_a_sink_may_share_a_name(tmp_path: Path) -> None:
    registry = load(tmp_path, good=GOOD.replace('"pile"', '"numbers"'))
    assert registry.problems == ()
    assert (registry.source("numbers").noun, registry.sink("numbers").noun) == ("Source", "Sink")


def test_in_a_plugin_that_only_registers_the_name_settings_means_nothing(tmp_path: Path) -> None:
    code = GOOD.split("@hookimpl\ndef check_run")[0].replace("= Field(default=10, ge=1)", "")
    registry = load(tmp_path, good=code)
    assert registry.problems == ()
    assert registry.parse_settings(registry.plugins[0].settings or "", {}).model_dump() == {}


class Guarded(BaseModel):
    token: Secret = "env:CHAT_TOKEN"


def test_a_secret_is_a_name_and_its_value_is_never_repeated() -> None:
    assert Guarded(token="env:OTHER").token == "env:OTHER"
    with pytest.raises(ValueError, match="write env:NAME") as caught:
        Guarded.model_validate({"token": "hunter2"})
    assert "hunter2" not in caught.value.errors(include_input=False)[0]["msg"]


def test_a_secret_is_read_from_the_environment_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_TOKEN", "hunter2")
    assert reveal(Guarded().token) == "hunter2"
    monkeypatch.delenv("CHAT_TOKEN")
    with pytest.raises(InputError, match=r"The secret env:CHAT_TOKEN is not there: set the environment variable"):
        reveal(Guarded().token)


def test_a_secret_that_is_no_name_is_not_repeated_either() -> None:
    with pytest.raises(InputError) as caught:
        reveal("hunter2")
    assert "hunter2" not in str(caught.value)
