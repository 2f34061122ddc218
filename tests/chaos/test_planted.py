"""The harness catches what it is for: each planted bug is found, by the line of the audit that should find it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from support.audit import ALWAYS, AT_THE_END

from chaos.household import Workshop
from chaos.orders import KILL
from chaos.planted import BUGS
from chaos.points import Point
from chaos.rounds import ENDED, Plan, again, play
from chaos.scenarios import Scenario


@dataclass(frozen=True)
class Reach:
    """How a bug is reached, and the line that tells of it."""

    line: str
    kill: str = ""
    task: str = "classify"
    api: tuple[tuple[str, Any], ...] = ()
    delivers: bool = False

    def plan(self) -> Plan:
        scenario = Scenario("planted", task=self.task, records=RECORDS, api=dict(self.api), delivers=self.delivers)
        strikes = ((Point.read(self.kill), KILL),) if self.kill else ()
        return Plan(None, scenario, strikes, workers=1, clocks=0, patience=PATIENCE)


RECORDS = 12
PATIENCE = 15.0  # seconds; a round without a bug takes two
STORED = "ingest:ingestion._store:committed:1"
ANSWERED = "submit:gateway.create:answered:1"
REACHED = {
    "retries_left_on": Reach("no_custom_id_is_accepted_twice", api=(("create_faults", "drop_after"),)),
    "guard_removed": Reach("the_moves_are_allowed"),
    "intent_committed_late": Reach("what_the_api_accepted_is_what_was_sent", kill=ANSWERED),
    "arming_skipped": Reach("no_custom_id_is_accepted_twice", kill=ANSWERED),
    "ledger_outside_the_transaction": Reach("the_ledger_is_the_bill", kill=STORED),
    "tally_outside_the_transaction": Reach("the_tallies_are_the_rows", kill=STORED),
    "results_outside_the_transaction": Reach("every_result_is_stored_once", kill=STORED),
    "outputs_claimed_before_they_are_made": Reach(
        "every_output_is_applied_once", kill="process:processing._chunks:committed:1"
    ),
    "a_cut_stream_taken_for_the_end": Reach(
        "every_request_is_accounted_for", api=(("results_faults", "truncate:2000"),)
    ),
    "a_good_answer_is_no_reason_to_stop": Reach(
        "nobody_pays_twice", task="summarise", api=(("overloaded_share", 0.5),)
    ),
    "a_step_that_nothing_makes_due": Reach(ENDED),
    "deliveries_that_nothing_makes_due": Reach("nothing_that_is_to_be_delivered_is_forgotten", delivers=True),
    "outputs_noted_as_taken_before_they_are": Reach(
        "what_was_delivered_is_what_the_runs_have", kill="deliver:delivering._taken:committed:1", delivers=True
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught_by_its_line(workshop: Workshop, bug: str) -> None:
    verdict = play(workshop, REACHED[bug].plan(), planted=bug)
    assert REACHED[bug].line in {one.line for one in verdict.broken}, verdict.words or "nothing was found"
    assert str(verdict).endswith("BROKEN")
    misfits = {"TypeError", "AttributeError", "NameError", "psycopg.errors.UndefinedColumn"}
    assert not misfits & verdict.unexpected.keys(), "the bug does not fit the code any more"


def test_without_a_bug_the_same_rounds_find_nothing(workshop: Workshop) -> None:
    with workshop.household(workers=1, clocks=0) as household:
        for reach in {(one.kill, one.task, one.api, one.delivers): one for one in REACHED.values()}.values():
            verdict = again(household, reach.plan())
            assert not verdict.broken, verdict.words
            assert len(verdict.done) == len(verdict.plan.strikes)


def test_each_line_of_the_audit_has_a_bug_that_it_catches() -> None:
    assert set(REACHED) == set(BUGS)
    assert {reach.line for reach in REACHED.values()} == {line.__name__ for line in (*ALWAYS, *AT_THE_END)} | {ENDED}
