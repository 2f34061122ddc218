"""Proves a plugin against the contract, point by point, and says what was seen.
The command `plugins check` calls it; the plugin runs in processes of its own, so that it can do no harm here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from webapp.errors import InputError
from webapp.hooks.contract import METHODS
from webapp.kit.findings import Book, Finding
from webapp.kit.sandboxes import SandboxThread
from webapp.kit.targets import Target
from webapp.kit.task_check import TaskCheck
from webapp.kit.trial import CPU_SECONDS, WALL_SECONDS, Broke, Trial
from webapp.records import jsontext
from webapp.records.reading import Problem, read_records

MOST_OWN = 10

# As different as two machines can be: sets have another order, and it is never the same day in both places.
_PLACES = ((1, "Pacific/Pago_Pago"), (2, "Pacific/Kiritimati"))


def check(
    target: Target,
    raw: Mapping[str, str] | None = None,
    *,
    own: Mapping[str, dict[str, Any]] | None = None,
    cpu_seconds: int = CPU_SECONDS,
    wall_seconds: float = WALL_SECONDS,
) -> Iterator[Finding]:
    """Each point of one plugin in turn.

    :param raw: settings of its tasks, as people write them; those that a task does not have are not for it.
    :param own: records to try its tasks with instead of the samples: see `own_records`.
    :param cpu_seconds: the most processor time that one call of the plugin may take.
    :param wall_seconds: the most time that one call may take, however little it computes.
    """
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(
                Trial(
                    asdict(target), hash_seed=seed, time_zone=zone, cpu_seconds=cpu_seconds, wall_seconds=wall_seconds
                )
            )
            for seed, zone in _PLACES
        )
        book = Book(f"plugin {target.name}")
        try:
            found = first.load()
        except Broke as broke:
            yield book.problem(f"loading it {broke}.")
            return
        yield from _loading(book, found)
        if not found.get("hooks"):
            return
        yield from _forms(first, found["owners"])
        if "check_run" in found["hooks"]:
            yield _check_run(book, first)
        folder = Path(stack.enter_context(TemporaryDirectory()))
        sandbox = stack.enter_context(SandboxThread(folder, delay=0))
        for task, kinds in found["tasks"].items():
            yield from TaskCheck(task, kinds, first, second, sandbox).findings(raw or {}, own or {})


def own_records(path: Path) -> dict[str, dict[str, Any]]:
    """The first records of a file or folder, for plugins that want others than the samples.

    :raises InputError: one of them is no use, or an image.
    """
    found = {}
    for one in islice(read_records(path), MOST_OWN):
        if isinstance(one, Problem):
            raise InputError(str(one))
        if one.image is not None:
            raise InputError(f"{path}: images are tried with a sample; give records of data, or a folder of texts.")
        found[f"record '{one.key}'"] = {"kind": one.kind, "key": one.key, "data": jsontext.loads(one.data)}
    return found


def _loading(book: Book, found: Mapping[str, Any]) -> Iterator[Finding]:
    if "problems" not in found:  # its attributes or values broke what describes it
        yield book.problem(f"loading it failed.\n{found.get('failed') or found.get('problem')}")
        return
    for error, trace in found["problems"]:
        yield book.problem(f"{error}\n{trace}".rstrip())
    for taken in found["taken"]:
        yield book.problem(f"{taken}: whichever is loaded later is left out. Choose another name.")
    if found["hooks"]:
        yield book.ok(f"it loads; hooks: {', '.join(found['hooks'])}.")


def _forms(trial: Trial, owners: list[list[str]]) -> Iterator[Finding]:
    for noun, name in owners:
        book = Book(f"{noun.lower()} {name}")
        try:
            drawn = trial.ask("form", noun=noun, name=name)
        except Broke as broke:
            yield book.problem(f"drawing the form of its settings {broke}.")
            continue
        if "controls" not in drawn:
            yield book.problem(f"no form can be drawn of its settings.\n{drawn.get('failed') or drawn.get('problem')}")
            continue
        controls = len(drawn["controls"])
        yield book.ok(f"the form of its settings has {controls} field{'' if controls == 1 else 's'}.")
        if drawn["kept"]:
            names = ", ".join(drawn["kept"])
            yield book.warning(f"no field can show {names}: in the dashboard it stays at its default.")
        if noun in ("Source", "Sink"):
            methods = next(methods for kind, methods in METHODS.items() if kind.noun == noun)
            calls = ", ".join(f"{method}({', '.join(arguments)})" for method, arguments in methods.items())
            yield book.ok(f"it has {calls}, which was not called.")


def _check_run(book: Book, trial: Trial) -> Finding:
    """Ask the plugin about a run that does not exist."""
    try:
        answer = trial.ask("check_run")
    except Broke as broke:
        return book.problem(f"check_run {broke}, so every run would be refused.")
    if "says" not in answer:
        return book.problem(f"{answer.get('failed') or answer.get('problem')}, so every such run would be refused.")
    said = answer["says"]
    return book.ok("check_run lets a run of 10 records go." if said is None else f"check_run refuses a run: {said}")
