"""Whether the plugins that check runs let one go: asked when its requests are built, before its first batch is cut.
The step `plan` calls it. Fails closed: what refuses, raises, takes too long or cannot be asked pauses the run.

Once let go, a run is not asked about again; one that was refused is, each time that it is resumed.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel
from sqlalchemy import Connection

from webapp import db
from webapp.batches.bounded import Broke, bounded
from webapp.batches.desk import Desk
from webapp.batches.facts import run_facts
from webapp.batches.states import RunState, move_run
from webapp.batches.steps import Lease
from webapp.errors import InputError, PluginError
from webapp.hooks import Hooked, Registry, RunFacts, calls
from webapp.installed.configuring import settings_of

ACTOR = "check"
_MEND = "Nothing was sent. Mend the plugin or take it away, then resume the run."


@dataclass(frozen=True, slots=True)
class _Question:
    """One plugin and what it is asked; or why it cannot be asked."""

    check: Hooked
    settings: BaseModel | None
    fault: str | None


def let_go(desk: Desk, lease: Lease) -> bool:
    """Ask every plugin that checks runs, and write down that the run may go, or pause it and say whose word that is.

    May be repeated: a run that was let go, or has a batch already, is.
    """
    registry = desk.registry
    with db.transaction() as tx:
        if _gone(tx, lease.target_id):
            return True
        lost = _lost(tx, registry)
        questions = [_question(tx, registry, check) for check in registry.checks]
        facts = run_facts(tx, lease.target_id)
    refusals = [*lost, *_refusals(questions, facts)]
    with db.transaction() as tx:
        lease.hold(tx)
        if not refusals:
            db.run(tx, "UPDATE runs SET checked_at = now() WHERE id = :id", id=lease.target_id)
            return True
        move_run(tx, lease.target_id, RunState.PAUSED, actor=ACTOR, reason=" ".join(refusals))
    return False


def _gone(tx: Connection, run_id: int) -> bool:
    return bool(
        db.scalar(
            tx,
            "SELECT checked_at IS NOT NULL OR EXISTS (SELECT 1 FROM batches WHERE run_id = :id) FROM runs "
            "WHERE id = :id",
            id=run_id,
        )
    )


def _lost(tx: Connection, registry: Registry) -> list[str]:
    """Of plugins that somebody has set up to check runs, those that cannot be loaded just now."""
    broken = {problem.plugin: problem for problem in registry.problems}
    found = db.rows(
        tx,
        "SELECT plugin FROM plugin_settings WHERE checks AND plugin = ANY(:broken) ORDER BY plugin",
        broken=list(broken),
    )
    return [f"Plugin '{name}' checks runs and cannot be asked. {broken[name].error} {_MEND}" for (name,) in found]


def _question(tx: Connection, registry: Registry, check: Hooked) -> _Question:
    try:
        return _Question(check, settings_of(tx, registry, check.plugin), None)
    except (InputError, PluginError) as error:
        words = f"{error}\nPut them right with `batchdesk plugins set {check.plugin.name}`, then resume the run."
        return _Question(check, None, words)


def _refusals(questions: list[_Question], facts: RunFacts) -> list[str]:
    """What plugins have against a run, in sentences that name them. Each is asked in a process of its own."""
    found = [question.fault for question in questions if question.fault is not None]
    for question, answer in bounded([one for one in questions if one.fault is None], lambda one: _ask(one, facts)):
        who = f"Plugin '{question.check.plugin.name}'"
        if isinstance(answer, Broke):
            found.append(f"{who}: check_run {answer.words}. {_MEND}")
            continue
        refusal, fault = answer
        if fault is not None:
            found.append(f"{who}: {fault}. {_MEND}")
        elif refusal is not None:
            found.append(f"{who} refuses this run: {refusal}")
    return found


def _ask(question: _Question, facts: RunFacts) -> tuple[str | None, str | None]:
    """(why the run must not be sent, what is wrong with the plugin)."""
    assert question.settings is not None
    try:
        return calls.check_run(question.check, facts, question.settings), None
    except PluginError as error:
        return None, str(error)
