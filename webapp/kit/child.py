"""The process that a plugin is tried in: `python -m webapp.kit.child`. It does what it is asked, a JSON line at a time.
Only `webapp.kit.trial` starts it. What the plugin prints goes nowhere; what it raises is answered in words.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from math import ceil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

from pydantic import BaseModel

from webapp import PLUGINS
from webapp.errors import BatchdeskError, InputError, InvalidOutput, PluginError
from webapp.hooks import Message, Registry, Subject, Task, calls, load_plugins
from webapp.hooks.checks import check_json
from webapp.hooks.configured import Configured
from webapp.kit import road, samples
from webapp.kit.targets import Target

MEMORY_BYTES = 1 << 30  # beyond what Python itself holds; as in planning and processing
_WATCHED = (
    "open",
    "socket.",
    "subprocess.",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.remove",
    "shutil.",
)
_MODULES = (".py", ".pyc", ".so", ".pth")


class Tried:
    """A loaded plugin and the settings that its tasks are tried with."""

    def __init__(self) -> None:
        self._registry = Registry()
        self._settings: dict[str, BaseModel] = {}
        self._shared: dict[str, dict[str, Any]] = {}
        self._watching = False
        self._touched: list[str] = []
        sys.addaudithook(self._see)

    def load(self, target: dict[str, str]) -> dict[str, Any]:
        """What a target brings. One without a source names a plugin of this installation."""
        everything = load_plugins(folder=PLUGINS)
        found = Target(**target).load() if target["source"] else _only(everything, target["name"])
        self._registry = found
        return {
            "problems": [[problem.error, problem.traceback] for problem in found.problems],
            "hooks": [hook for plugin in found.plugins for hook in plugin.hooks],
            "version": next((plugin.version for plugin in found.plugins), ""),
            "tasks": {task.name: sorted(task.subject_kinds) for task in found.tasks.values()},
            "owners": [[one.noun, one.name] for one in self._owners()],
            "taken": _taken(found, everything, target),
        }

    def form(self, noun: str, name: str) -> dict[str, Any]:
        """The controls of a form of settings, as the dashboard draws them; and the settings that have none."""
        from flask import Flask

        from webapp.admin.forms import SettingsForm

        app = Flask("form")
        app.extensions["batchdesk"] = SimpleNamespace(registry=self._registry)
        with app.test_request_context():
            form = SettingsForm.of(self._owner(noun, name))
            drawn = {control.short_name: str(control()) for control in form.fields}
            return {"controls": list(drawn), "kept": form.kept}

    def check_run(self) -> dict[str, Any]:
        """What the plugin's check says of a run of ten records, with its default settings."""
        [check] = self._registry.checks
        owner = check.plugin.settings
        settings: Any = self._registry.parse_settings(owner, {}) if owner else None
        try:
            return {"says": calls.check_run(check, samples.RUN, settings)}
        except PluginError as error:
            return {"problem": str(error)}

    def samples(self, task: str, raw: dict[str, str]) -> dict[str, Any]:
        """Settings to try the task with, several guesses: those given, and values for those without a default."""
        model = self._registry.task(task).Settings
        given = {name: value for name, value in raw.items() if name in model.model_fields}
        needed = [name for name, info in model.model_fields.items() if info.is_required() and name not in given]
        return {"tries": [{**values, **given} for values in samples.settings(model)], "needed": needed}

    def settings(self, task: str, raw: dict[str, Any]) -> dict[str, Any]:
        """Take these settings for a task."""
        try:
            self._settings[task] = self._registry.parse_settings(task, raw)
        except BatchdeskError as error:
            return {"refused": str(error)}
        return {}

    def shared(self, task: str) -> dict[str, Any]:
        """The shared part, as text."""
        try:
            made = calls.shared_params(self._registry.task(task), self._settings[task])
        except InputError as error:
            return {"refused": str(error)}
        except PluginError as error:
            return {"problem": str(error)}
        self._shared[task] = made
        return {"text": json.dumps(made)}

    def own(self, task: str, subject: dict[str, Any]) -> dict[str, Any]:
        """The own part of a record, as text, an image's data in its place."""
        settings = self._settings[task]
        before = _frozen(settings)
        try:
            params = calls.request_params(
                self._registry.task(task), samples.subject(subject), settings, self._shared[task]
            )
        except InputError as error:
            return {"refused": str(error)}
        except PluginError as error:
            return {"problem": str(error)}
        changed = ["settings"] if _frozen(settings) != before else []
        return {"text": json.dumps(road.sendable(params, samples.PICTURES)), "changed": changed}

    def process(self, task: str, subject: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
        """What becomes of an answer, and what else the processor did meanwhile."""
        settings, given, record = self._settings[task], Message(message), samples.subject(subject)
        parts: dict[str, Callable[[], str]] = {
            "message": lambda: json.dumps(message),
            "subject": lambda: json.dumps(dict(record.data)),
            "settings": lambda: _frozen(settings),
        }
        before = {name: frozen() for name, frozen in parts.items()}
        self._touched = []
        answer = self._processed(self._registry.task(task), record, given, settings)
        changed = [name for name, frozen in parts.items() if frozen() != before[name]]
        return {**answer, "touched": sorted(set(self._touched)), "changed": changed}

    def _processed(self, task: Task[Any], record: Subject, message: Message, settings: BaseModel) -> dict[str, Any]:
        try:
            self._watching = True
            try:
                output = task.process(record, message, settings)
            finally:
                self._watching = False
            check_json(output, "the output")
            return {"output": json.dumps(output)}
        except InvalidOutput as error:
            return {"invalid": str(error)}
        except PluginError as error:
            return {"problem": str(error)}
        except MemoryError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a plugin raises is what is asked about
            return {"problem": f"it raised {_raised(error)}"}

    def _owners(self) -> list[Configured[Any]]:
        found = self._registry
        own = [plugin.settings for plugin in found.plugins if plugin.settings and plugin.settings.Settings.model_fields]
        return [*found.tasks.values(), *found.sources.values(), *found.sinks.values(), *own]

    def _owner(self, noun: str, name: str) -> Configured[Any]:
        return next(one for one in self._owners() if (one.noun, one.name) == (noun, name))

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._watching or not event.startswith(_WATCHED):
            return
        what = str(arguments[0]) if arguments and isinstance(arguments[0], str | bytes | int | list) else ""
        # Importing within a call reads modules, which is nobody's data.
        if event != "open" or not what.endswith(_MODULES):
            self._touched.append(f"{event} {what}".strip())


def _only(everything: Registry, name: str) -> Registry:
    """The part of a registry that one plugin brings."""
    plugins = tuple(plugin for plugin in everything.plugins if plugin.name == name)

    def theirs(kind: str) -> dict[str, Any]:
        names = [one for plugin in plugins for one in getattr(plugin, kind)]
        return {one: getattr(everything, kind)[one] for one in names}

    return Registry(
        tasks=theirs("tasks"),
        sources=theirs("sources"),
        sinks=theirs("sinks"),
        checks=tuple(one for one in everything.checks if one.plugin in plugins),
        listeners=tuple(one for one in everything.listeners if one.plugin in plugins),
        plugins=plugins,
        problems=tuple(problem for problem in everything.problems if problem.plugin == name),
    )


def _taken(found: Registry, everything: Registry, target: Mapping[str, str]) -> list[str]:
    """Names that another plugin of this installation has already."""
    sentences = []
    for plugin in everything.plugins:
        if plugin.name == target["name"]:
            continue  # the same plugin, installed
        for kind in ("tasks", "sources", "sinks"):
            both = sorted(set(getattr(plugin, kind)) & getattr(found, kind).keys())
            sentences += [f"{kind[:-1]} '{name}' is the name of one of plugin '{plugin.name}' here" for name in both]
    return sentences


def _frozen(settings: BaseModel) -> str:
    return settings.model_dump_json()


def _raised(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {str(error)[:500]}{where}"


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it goes when its starter goes
        held = int(Path("/proc/self/statm").read_text("ascii").split()[5]) * resource.getpagesize()
        _lower(resource.RLIMIT_DATA, held + MEMORY_BYTES)


def _allow(seconds: int) -> None:
    """So much processor time from now on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource.RLIMIT_CPU, ceil(used.ru_utime + used.ru_stime) + seconds)


def _lower(what: int, to: int) -> None:
    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (to if hard == resource.RLIM_INFINITY else min(to, hard), hard))


def _private() -> tuple[BinaryIO, BinaryIO]:
    """The pipes to our starter; whatever else reads or writes in this process has none."""
    reading, writing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):
        os.dup2(nothing, number)
    return reading, writing


def main() -> None:
    reading, writing = _private()
    cpu_seconds = int(sys.argv[1])
    _limit()
    tried = Tried()
    for line in reading:
        method, arguments = json.loads(line)
        _allow(cpu_seconds)
        try:
            answer = getattr(tried, method)(**arguments)
        except MemoryError:
            answer = {"problem": f"it needed more than {MEMORY_BYTES >> 20:,} MB of memory"}
        except (KeyboardInterrupt, GeneratorExit) as error:
            answer = {"problem": f"it raised {_raised(error)}"}
        except Exception:  # noqa: BLE001 - a fault of ours, or of a plugin beyond what its calls may raise
            answer = {"failed": traceback.format_exc()}
        writing.write(json.dumps(answer).encode("ascii") + b"\n")
        writing.flush()


if __name__ == "__main__":
    main()
