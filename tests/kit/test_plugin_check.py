"""`plugins check`: what it sees of a sound plugin, and of one bad task of each kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from webapp.errors import InputError
from webapp.kit import nasty
from webapp.kit.checking import check
from webapp.kit.findings import Finding, Level
from webapp.kit.targets import Target, find

ZOO = """
import json
import os
import signal
import socket
from datetime import date

from pydantic import Field

from webapp.hooks import InputError, InvalidOutput, ModelSettings, Record, RunFacts, Sink, Source, Task, hookimpl

CALLS = []


class Sound(Task[ModelSettings]):
    name = "sound"
    Settings = ModelSettings

    def prompt(self, settings):
        return "Say what this is about. " * 200

    def shared_params(self, settings):
        marker = {"type": "ephemeral", "ttl": "1h"}
        block = {"type": "text", "text": self.prompt(settings), "cache_control": marker}
        return {**settings.base_params(), "system": [block]}

    def request_params(self, subject, settings):
        return {"messages": [{"role": "user", "content": subject.require_text()}]}

    def process(self, subject, message, settings):
        message.require_complete()
        return self.made(subject, message, settings)

    def made(self, subject, message, settings):
        return message.text


class Dated(Sound):
    name = "dated"

    def prompt(self, settings):
        return f"Today is {date.today()}."


class Unsorted(Sound):
    name = "unsorted"

    def prompt(self, settings):
        return ", ".join({"alpha", "beta", "gamma", "delta", "epsilon"})


class Counting(Sound):
    name = "counting"

    def prompt(self, settings):
        CALLS.append(1)
        return f"Question {len(CALLS)}."


class Unmarked(Sound):
    name = "unmarked"

    def shared_params(self, settings):
        return {**settings.base_params(), "system": "Short."}


class Brief(Sound):
    name = "brief"

    def shared_params(self, settings):
        block = {"type": "text", "text": "Short.", "cache_control": {"type": "ephemeral"}}
        return {**settings.base_params(), "system": [block]}


class Refused(Sound):
    name = "refused"

    def request_params(self, subject, settings):
        return {"messages": [{"role": "user", "content": "Go on."}, {"role": "assistant", "content": "{"}]}


class Titled(Sound):
    name = "titled"

    def request_params(self, subject, settings):
        return {"messages": [{"role": "user", "content": subject.data["title"]}]}


class Fragile(Sound):
    name = "fragile"

    def process(self, subject, message, settings):
        return message.raw["content"][0]["text"]


class Odd(Sound):
    name = "odd"

    def made(self, subject, message, settings):
        return {1, 2}


class Talkative(Sound):
    name = "talkative"

    def made(self, subject, message, settings):
        return "very " * 1_000_000


class Opening(Sound):
    name = "opening"

    def made(self, subject, message, settings):
        with open(__file__) as own, open("/dev/null") as other, socket.socket() as wire:
            return message.text


class Moody(Sound):
    name = "moody"

    def made(self, subject, message, settings):
        CALLS.append(1)
        return len(CALLS)


class Meddling(Sound):
    name = "meddling"

    def made(self, subject, message, settings):
        message.raw["content"].append({})
        return message.text


class Leaving(Sound):
    name = "leaving"

    def made(self, subject, message, settings):
        raise SystemExit(3)


class Looping(Sound):
    name = "looping"

    def made(self, subject, message, settings):
        while True:
            pass


class Crashing(Sound):
    name = "crashing"

    def made(self, subject, message, settings):
        os.kill(os.getpid(), signal.SIGSEGV)


class Hungry(Sound):
    name = "hungry"

    def made(self, subject, message, settings):
        return len(bytearray(1 << 50))


class Coded(ModelSettings):
    code: str = Field(pattern="^[0-9]{4}$")


class Particular(Sound):
    name = "particular"
    Settings = Coded


class Helped(Sound):
    name = "helped"

    class Settings(ModelSettings):
        code: str = Field(pattern="^[0-9]{4}$", examples=["1234"])


class Strict(Sound):
    name = "strict"

    def made(self, subject, message, settings):
        raise InvalidOutput("nothing pleases me")


class Numbers(Source[ModelSettings]):
    name = "numbers"
    Settings = ModelSettings

    def records(self, settings):
        yield Record("1", {})


class Pile(Sink[ModelSettings]):
    name = "pile"
    Settings = ModelSettings

    def deliver(self, run, outputs, settings, key):
        return None


@hookimpl
def register_tasks():
    print("this goes nowhere")
    kinds = [Sound, Dated, Unsorted, Counting, Unmarked, Brief, Refused, Titled, Fragile, Odd, Opening, Moody, Meddling]
    return [kind() for kind in [*kinds, Talkative, Leaving, Looping, Crashing, Hungry, Particular, Helped, Strict]]


@hookimpl
def register_sources():
    return [Numbers()]


@hookimpl
def register_sinks():
    return [Pile()]


@hookimpl
def check_run(run):
    return f"over nine: {run.subjects}"
"""


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> list[Finding]:
    """Everything that is found in one plugin with a task for each fault."""
    path = tmp_path_factory.mktemp("zoo") / "zoo.py"
    path.write_text(ZOO)
    [target] = find(path)
    return list(check(target, cpu_seconds=3))


def of(zoo: list[Finding], about: str, level: Level) -> list[str]:
    return [finding.words for finding in zoo if finding.about == about and finding.level == level]


def test_a_sound_task_passes_every_point(zoo: list[Finding]) -> None:
    assert of(zoo, "task sound", Level.PROBLEM) == of(zoo, "task sound", Level.WARNING) == []
    points = " ".join(of(zoo, "task sound", Level.OK))
    for words in ("form of its settings has 3 fields", "the same each time", "caches from 512 on", "no text"):
        assert words in points
    for words in ("the sandbox takes its requests, and answers 3", "nasty answers", "process is pure"):
        assert words in points


@pytest.mark.parametrize(
    ("task", "level", "words"),
    [
        ("dated", Level.PROBLEM, "another part in another process"),
        ("unsorted", Level.PROBLEM, "another part in another process"),
        ("counting", Level.PROBLEM, "another part when it is asked again"),
        ("unmarked", Level.WARNING, "no cache_control"),
        ("brief", Level.WARNING, "is not for an hour"),
        ("brief", Level.WARNING, "nothing is cached"),
        ("refused", Level.PROBLEM, "the sandbox refuses its request about a short document"),
        ("titled", Level.PROBLEM, "request_params raised KeyError: 'title'"),
        ("fragile", Level.PROBLEM, "process, given a refusal: it raised IndexError"),
        ("odd", Level.PROBLEM, "the output is of type set, which JSON cannot hold"),
        ("talkative", Level.PROBLEM, "its output is larger than the 4,000,000 bytes that are kept"),
        ("opening", Level.PROBLEM, "it opens something: open /dev/null"),
        ("opening", Level.PROBLEM, "it opens something: socket.__new__"),
        ("moody", Level.PROBLEM, "says another thing when it runs again"),
        ("meddling", Level.PROBLEM, "process changes its message"),
        ("leaving", Level.PROBLEM, "it raised SystemExit: 3"),
        ("looping", Level.PROBLEM, "took more than 3 seconds of processor time. Nothing after it was tried"),
        ("crashing", Level.PROBLEM, "ended its process (SIGSEGV"),
        ("particular", Level.WARNING, "no values were found for code. Give them with --set"),
        ("strict", Level.WARNING, "is no use to it: nothing pleases me"),
    ],
)
def test_a_bad_task_is_told_what_is_wrong(zoo: list[Finding], task: str, level: Level, words: str) -> None:
    found = of(zoo, f"task {task}", level)
    assert any(words in one for one in found), found


def test_a_task_that_needs_too_much_memory_is_told_so(zoo: list[Finding]) -> None:
    assert any("it needed more than 1,024 MB of memory" in words for words in of(zoo, "task hungry", Level.PROBLEM))


def test_a_task_is_tried_with_the_examples_of_its_settings(zoo: list[Finding]) -> None:
    assert any("nasty answers" in words for words in of(zoo, "task helped", Level.OK))


def test_forms_of_sources_and_sinks_are_drawn_and_their_methods_named(zoo: list[Finding]) -> None:
    assert of(zoo, "source numbers", Level.OK) == [
        "the form of its settings has 3 fields.",
        "it has records(settings), which was not called.",
    ]
    assert "deliver(run, outputs, settings, key)" in of(zoo, "sink pile", Level.OK)[1]


def test_a_check_of_runs_is_asked_about_one(zoo: list[Finding]) -> None:
    assert "check_run refuses a run: over nine: 10" in of(zoo, "plugin zoo", Level.OK)


def test_a_plugin_that_cannot_be_loaded_is_shown_with_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import no_such_module_anywhere\n")
    [finding] = check(find(tmp_path / "bad.py")[0])
    assert finding.level is Level.PROBLEM
    assert "No module named 'no_such_module_anywhere'" in finding.words and "Traceback" in finding.words


def test_a_plugin_that_ends_its_process_while_it_is_loaded_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import os\nos._exit(9)\n")
    [finding] = check(find(tmp_path / "bad.py")[0])
    assert (finding.level, finding.words) == (Level.PROBLEM, "loading it ended its process (exit status 9).")


def test_a_plugin_that_does_not_come_back_is_ended(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import time\ntime.sleep(1000)\n")
    [finding] = check(find(tmp_path / "bad.py")[0], wall_seconds=0.5)
    assert finding.words == "loading it did not come back within 0.5 seconds."


def test_a_name_that_another_plugin_here_has_is_a_problem(tmp_path: Path) -> None:
    code = ZOO.replace('name = "sound"', 'name = "classify"').split("kinds = [")[0] + "return [Sound()]\n"
    (tmp_path / "mine.py").write_text(code)
    found = check(find(tmp_path / "mine.py")[0])
    assert "task 'classify' is the name of one of plugin 'classify' here" in next(found).words


def test_what_is_no_plugin_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no pyproject\.toml"):
        find(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        find(tmp_path / "gone")
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    with pytest.raises(InputError, match="names no plugin"):
        find(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[project.entry-points.'batchdesk.plugins']\nx = 'gone:plugin'\n")
    with pytest.raises(InputError, match="has no module 'gone'"):
        find(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[project")
    with pytest.raises(InputError, match="cannot be read"):
        find(tmp_path)
    (tmp_path / "x-1.0-cp311-cp311-linux_x86_64.whl").write_bytes(b"")
    with pytest.raises(InputError, match="built for one system"):
        find(tmp_path / "x-1.0-cp311-cp311-linux_x86_64.whl", tmp_path)
    (tmp_path / "x-1.0-py3-none-any.whl").write_bytes(b"PK")
    with pytest.raises(InputError, match="cannot be read"):
        find(tmp_path / "x-1.0-py3-none-any.whl", tmp_path)


def test_a_package_below_src_is_found(tmp_path: Path) -> None:
    (tmp_path / "src" / "mine").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("[project.entry-points.'batchdesk.plugins']\nx = 'mine.plugin'\n")
    assert find(tmp_path) == [Target("x", str(tmp_path), "", "mine.plugin", str(tmp_path / "src"))]


def test_nasty_answers_are_of_every_kind_and_differ() -> None:
    good = {"content": [{"type": "text", "text": '{"label": "a", "parts": [{"b": 1}]}'}], "stop_reason": "end_turn"}
    found = dict(nasty.messages(good))
    assert {message["stop_reason"] for message in found.values() if "stop_reason" in message} >= {
        "refusal",
        "max_tokens",
        "pause_turn",
        "tool_use",
        None,
    }
    assert "JSON with null at parts.0.b" in found and "JSON without label" in found
    assert good not in found.values()
