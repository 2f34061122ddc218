"""Anything in any order: a state machine of what workers, people, the API and time may do, and books that agree.

Hypothesis chooses; the sandbox's truth judges. After each rule the cheap accounts are checked; at the end of each
example everything is let to settle, and all of them are.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from support import audit
from support.boundaries import Boundaries, Killed
from support.desk import DeskDriver, documents
from support.sandbox import API_KEY, SandboxThread

from webapp import db
from webapp.batches import completion
from webapp.batches.states import FailureClass
from webapp.errors import NotFound, Refused
from webapp.gateway import Gateway
from webapp.runs import verbs

LONGER = "MODEL_EXAMPLES=500 MODEL_STEPS=80 .venv/bin/python -m pytest --timeout 0 -s tests/batches/test_model.py"
MOST_RUNS = 6
MOST_STRANGERS = 3
ROUNDS = 80  # in which everything settles

CREATE_FAULTS = (
    "drop_after", "529_after", "drop_before", "garbled", "500", "408", "429:30", "413", "400", "401", "credit",
    "spend_cap", "404",
)  # fmt: skip
CALL_FAULTS = ("500", "drop_before", "drop_after", "garbled", "429:30", "401", "404", "ok,500")
RESULTS_FAULTS = (
    "truncate:10", "truncate:1500", "duplicate:2", "unknown:2", "garbage:1", "blank+crlf", "missing:1", "missing:9*2",
    "missing:1*2", "unknown_type:1", "duplicate:2+garbage:1+crlf", "500", "404", "401", "drop_before",
)  # fmt: skip
#: Steps, the calls they make, and how these fail.
TROUBLES = (
    *(("ingest", "results", fault) for fault in RESULTS_FAULTS),
    *(("poll", "retrieve", fault) for fault in CALL_FAULTS),
    *(("submit", "list", fault) for fault in CALL_FAULTS),
    *(("poll", "cancel", fault) for fault in CALL_FAULTS),
)
#: What people ask for; what ends a run is asked for less.
WISHES = (
    "resume", "resubmit", "poll", "refetch", "rotate key", "pause", "cancel batch", "resume", "resubmit", "cancel",
)  # fmt: skip
#: What may happen at a boundary of somebody's step.
OTHERS = ("take over", "go on", "take over", *WISHES)
OUTCOMES = (
    {}, {"overloaded_share": 0.5}, {"invalid_share": 0.5}, {"expired_share": 0.5}, {"missing_share": 0.4},
    {"nasty_share": 0.5}, {"overloaded_share": 0.3, "invalid_share": 0.2, "missing_share": 0.2},
)  # fmt: skip
TOLD = {
    "adopted": "Found in the API's list",
    "adopted wrongly": "holds no line of ours",
    "never created": "The API's complete list does not show it",
    "held for several candidates": "batches at the API may be this one",
    "an answer came late": "The answer to an earlier POST came late",
    "created twice": "after it was given up",
    "late lines": "results that had not been stored",
    "cut in two": "two smaller batches",
    "paused for the account": "The API refuses this account",
    "sent again": "subjects are sent again",
}
NO_SHARES = {f"{name}_share": 0 for name in ("overloaded", "invalid", "expired", "missing", "nasty")}
NO_FAULTS = {f"{name}_faults": "" for name in ("create", "retrieve", "list", "results", "cancel")}

which = st.integers(0, 30)
boundary = st.integers(0, 39)  # a step passes 17 to 39 of them
sending = st.integers(18, 24)  # from the arming of a POST to the recording of its answer


def move(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(st.just(name), *arguments)


#: What may happen next, the likelier the oftener it stands here. One choice, not a rule each: Hypothesis leaves whole
#: rules out of a walk, and this road needs them all to get anywhere.
MOVES = st.one_of(
    move("all_goes_well", st.integers(1, 3)),
    move("a_post_fails", st.sampled_from(CREATE_FAULTS), st.integers(1, 4)),
    move("die", which, boundary),
    move("all_goes_well", st.integers(1, 3)),
    move("a_call_fails", st.sampled_from(TROUBLES)),
    move("meanwhile", which, boundary, st.sampled_from(OTHERS)),
    move("a_post_is_interrupted", st.integers(1, 3), sending, st.just("die")),
    move("a_post_is_interrupted", st.integers(1, 3), sending, st.sampled_from(OTHERS)),
    move("perform_all"),
    move("perform_one", which),
    move("click", st.sampled_from(WISHES), which),
    move("start", st.integers(1, 7)),
    move("resubmit", which, st.sets(st.sampled_from(list(FailureClass)), min_size=1)),
    move("requests_fare", st.sampled_from(OUTCOMES)),
    move("a_stranger_sends", st.integers(1, 3)),
    move("time_passes", st.sampled_from((5.0, 60.0, 700.0, 4000.0, 90_000.0))),
)


class Road(RuleBasedStateMachine):
    """One installation, its sandbox, and what may happen to them."""

    desk: DeskDriver
    boundaries: Boundaries
    folder: Path
    met: Counter[str]
    made = 0

    @initialize(count=st.integers(1, 7))
    def fresh(self, count: int) -> None:
        Road.made += 1
        names = self.desk.scalar(
            "SELECT string_agg(tablename, ', ') FROM pg_tables WHERE schemaname = 'public' "
            "AND tablename <> 'alembic_version'"
        )
        self.desk.execute(f"TRUNCATE {names} RESTART IDENTITY")
        self.sandbox = SandboxThread(self.folder / str(Road.made), delay=3600, cancel_delay=600, nasty_bytes=500)
        self.keys = 0
        self.rotate_key()
        self.strangers: set[str] = set()
        self.passed = 0.0
        self.start(count)

    @rule(move=MOVES)
    def next(self, move: tuple[Any, ...]) -> None:
        name, *arguments = move
        getattr(self, name)(*arguments)

    # -- workers -------------------------------------------------------------------------------------------------

    def start(self, count: int) -> None:
        if self.desk.scalar("SELECT count(*) FROM runs") < MOST_RUNS:
            self.desk.start(documents(count))

    def perform_one(self, which: int) -> None:
        self._step(which, nullcontext)

    def perform_all(self) -> None:
        self.desk.perform_due()

    def die(self, which: int, boundary: int) -> None:
        """A worker is killed at a boundary of its step, and leaves its lease behind."""
        self._step(which, lambda: self.boundaries.at(boundary, None))

    def meanwhile(self, which: int, boundary: int, others: str) -> None:
        """At a boundary of a step somebody clicks, or other workers go on, or they take its worker for dead."""
        self._step(which, lambda: self.boundaries.at(boundary, lambda: self._others(others, which)))

    def a_post_is_interrupted(self, count: int, boundary: int, others: str) -> None:
        """Likewise, or a death, while a new run is sent."""
        self.start(count)
        self._perform_first("plan")
        deed = None if others == "die" else lambda: self._others(others, boundary)
        self._perform_first("submit", lambda: self.boundaries.at(boundary, deed))

    def _others(self, others: str, which: int) -> None:
        note(f"meanwhile: {others}")
        if others in WISHES:
            self._wish(others, which)
            return
        if others == "take over":
            self.desk.lapse()
        for _ in range(3):
            self.desk.perform_due()
            self.desk.hurry()

    def _step(self, which: int, within: Callable[[], Any]) -> None:
        ready = self.desk.rows(
            "SELECT step, target_id FROM steps WHERE (due_at <= now() OR lease_until IS NOT NULL) "
            "AND (lease_until IS NULL OR lease_until < now()) ORDER BY step, target_id"
        )
        if ready:
            step, target_id = ready[which % len(ready)]
            self._perform(step, target_id, within)

    def _perform(self, step: str, target_id: int, within: Callable[[], Any]) -> None:
        note(f"{step} {target_id}")
        try:
            with within():
                self.desk.perform(step, target_id)
        except Killed:
            note("killed")
            self.met["killed"] += 1

    # -- people --------------------------------------------------------------------------------------------------

    def click(self, wish: str, which: int) -> None:
        self._wish(wish, which)

    def resubmit(self, which: int, classes: set[FailureClass]) -> None:
        run_id = self._one("SELECT id FROM runs ORDER BY id", which)
        self._ask(lambda tx: verbs.resubmit_run(tx, run_id, sorted(classes), actor="tester"))

    def rotate_key(self) -> None:
        """Another key of the same workspace."""
        self.keys += 1
        self.desk.desk.gateway = self.boundaries.gateway(
            Gateway(api_key=f"{API_KEY}-{self.keys}", base_url=self.sandbox.url)
        )

    def _wish(self, wish: str, which: int) -> None:
        run_id = self._one("SELECT id FROM runs ORDER BY id", which)
        batch_id = self._one("SELECT id FROM batches ORDER BY id", which) or 1
        note(f"{wish}: run {run_id}, or batch {batch_id}")
        deeds: dict[str, Callable[[Any], Any]] = {
            "cancel": lambda tx: verbs.cancel_run(tx, run_id, actor="tester"),
            "resume": lambda tx: verbs.resume_run(tx, run_id, actor="tester"),
            "resubmit": lambda tx: verbs.resubmit_run(tx, run_id, list(FailureClass), actor="tester"),
            "pause": lambda tx: completion.pause_run(tx, run_id, "A person wants it.", actor="tester"),
            "cancel batch": lambda tx: verbs.cancel_batch(tx, batch_id, actor="tester"),
            "poll": lambda tx: verbs.poll_now(tx, batch_id, actor="tester"),
            "refetch": lambda tx: verbs.refetch_batch(tx, batch_id, actor="tester"),
            "rotate key": lambda tx: self.rotate_key(),
        }
        self._ask(deeds[wish])

    def _ask(self, verb: Callable[[Any], Any]) -> None:
        try:
            with db.transaction() as tx:
                verb(tx)
        except (Refused, NotFound) as error:
            note(str(error))

    def _one(self, query: str, which: int, **parameters: Any) -> Any:
        found = self.desk.rows(query, **parameters)
        return found[which % len(found)][0] if found else None

    # -- the API -------------------------------------------------------------------------------------------------

    def a_call_fails(self, trouble: tuple[str, str, str]) -> None:
        """The next call of a verb fails so; it is made at once where a batch has got so far."""
        step, verb, fault = trouble
        self.sandbox.configure(**{f"{verb}_faults": fault})
        self.time_passes(4000.0 if step == "ingest" else 60.0)
        for needed in ("poll", step) if step == "ingest" else (step,):
            self._perform_first(needed)

    def a_post_fails(self, fault: str, count: int) -> None:
        """A POST that fails so: of a new run, or the next there is."""
        self.sandbox.configure(create_faults=fault)
        self.start(count)
        self._perform_first("plan")
        self._perform_first("submit")

    def _perform_first(self, step: str, within: Callable[[], Any] = nullcontext) -> None:
        target = self._one(
            "SELECT target_id FROM steps WHERE step = :step AND due_at <= now() ORDER BY 1", 0, step=step
        )
        if target is not None:
            self._perform(step, target, within)

    def requests_fare(self, shares: dict[str, float]) -> None:
        """How the requests of later batches fare."""
        self.sandbox.configure(**(NO_SHARES | shares))

    def a_stranger_sends(self, total: int) -> None:
        """Somebody else in the workspace makes a batch, of a total that ours may have."""
        if len(self.strangers) < MOST_STRANGERS:
            self.sandbox.configure(create_faults="")
            params = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
            made = [{"custom_id": f"theirs-{len(self.strangers)}-{n}", "params": params} for n in range(total)]
            answer = self.sandbox.call("POST", "/v1/messages/batches", {"requests": made})
            self.strangers.add(answer["id"])

    # -- time ----------------------------------------------------------------------------------------------------

    def time_passes(self, seconds: float) -> None:
        """Here and at the API. Not so long that results vanish, which would be answers paid for and lost."""
        if self.passed > 15 * 86_400:
            return
        self.passed += seconds
        self.sandbox.advance(seconds)
        for table, columns in {
            "steps": ("due_at", "lease_until", "nudged_at"),
            "accounts": ("throttled_until",),
            "submissions": ("intent_at", "armed_at", "ended_at"),
            "batches": ("state_since", "incomplete_since", "api_created_at", "polled_at"),
        }.items():
            sets = ", ".join(f"{column} = {column} - make_interval(secs => :seconds)" for column in columns)
            self.desk.execute(f"UPDATE {table} SET {sets}", seconds=seconds)

    def all_goes_well(self, times: int) -> None:
        """Time and workers, for a while: what is rare after that is met more often."""
        for _ in range(times):
            self.time_passes(700.0)
            self.desk.perform_due()

    # -- what must hold --------------------------------------------------------------------------------------------

    @invariant()
    def the_books_agree(self) -> None:
        audit.audit(self.desk, self.sandbox, over=False, strangers=self.strangers)
        # A call that failed is a sentence; anything else begins with its exception's name.
        broken = self.desk.rows("SELECT step, target_id, error FROM steps WHERE error ~ '^[A-Za-z]+: '")
        assert not broken, broken

    def teardown(self) -> None:
        """Without further trouble all runs end, and every account agrees."""
        if not hasattr(self, "sandbox"):
            return
        try:
            self._settle()
            self._tell()
            audit.audit(self.desk, self.sandbox, strangers=self.strangers)
        finally:
            self.sandbox.stop()

    def _tell(self) -> None:
        """Count what this example has come by: a walk that meets nothing shows nothing."""
        self.met["examples"] += 1
        for (state,) in self.desk.rows("SELECT DISTINCT to_state FROM events WHERE kind = 'move'"):
            self.met[state] += 1
        for what, words in TOLD.items():
            told = "SELECT EXISTS (SELECT 1 FROM events WHERE reason LIKE :words)"
            self.met[what] += self.desk.scalar(told, words=f"%{words}%")
        if self.met["examples"] % 20 == 0:
            print(dict(self.met.most_common()), flush=True)

    def _settle(self) -> None:
        self.sandbox.configure(**NO_FAULTS, **NO_SHARES)
        for number in range(ROUNDS):
            self.sandbox.configure(results_faults="")
            self.desk.lapse()
            self.time_passes(4000.0)
            self.passed = 0.0
            self.desk.hurry()
            for (run_id,) in self.desk.rows(
                "SELECT id FROM runs WHERE state = 'paused' OR pause_wanted_at IS NOT NULL"
            ):
                self._ask(lambda tx, run_id=run_id: verbs.resume_run(tx, run_id, actor="tester"))
            for (batch_id,) in self.desk.rows("SELECT id FROM batches WHERE state = 'done' AND owed > 0"):
                self._ask(lambda tx, batch_id=batch_id: verbs.refetch_batch(tx, batch_id, actor="tester"))
            if number > 10:
                self._remove_strangers()
            if number > 20:
                # What nothing proves whose it is waits for a person, or for the end of its results.
                unproved = "NOT proved AND held AND state = 'ingesting'"
                self.desk.execute(f"UPDATE batches SET api_created_at = now() - interval '30 days' WHERE {unproved}")
                if self.desk.scalar(f"SELECT EXISTS (SELECT 1 FROM batches WHERE {unproved})"):
                    self.sandbox.configure(results_faults="404*8")
            if not self.desk.perform_due():
                break
        runs_left = self.desk.rows("SELECT id, state, reason FROM runs WHERE state NOT IN ('finished', 'cancelled')")
        batches = self.desk.rows("SELECT id, state, reason FROM batches WHERE state NOT IN ('done', 'discarded')")
        assert not runs_left, (runs_left, batches, self.desk.rows("SELECT * FROM steps"))

    def _remove_strangers(self) -> None:
        """What a batch is held for: several could be it. A person would tell them apart."""
        taken = {api_id for (api_id,) in self.desk.rows("SELECT api_id FROM batches")}
        for api_id in sorted(self.strangers - taken):
            found = [b for b in self.sandbox.call("GET", "/v1/messages/batches?limit=100")["data"] if b["id"] == api_id]
            if found and found[0]["processing_status"] == "ended":
                self.sandbox.call("DELETE", f"/v1/messages/batches/{api_id}")


def test_anything_in_any_order_leaves_books_that_agree(
    desk: DeskDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same short walk each time; with MODEL_EXAMPLES set, that many others."""
    desk.change(
        batch_max_requests=3, unknown_grace=900, missing_wait=600, retry_delay=300, poll_schedule="300:30,*:300"
    )
    boundaries = Boundaries()
    boundaries.watch(monkeypatch)
    met: Counter[str] = Counter()
    given = {"desk": desk, "boundaries": boundaries, "folder": tmp_path / "sandboxes", "met": met}
    machine = type("Machine", (Road,), given)
    long = "MODEL_EXAMPLES" in os.environ
    print(f"Longer, and another each time: {LONGER}")
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=int(os.environ.get("MODEL_EXAMPLES", "12")),
            stateful_step_count=int(os.environ.get("MODEL_STEPS", "26")),
            derandomize=not long,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],  # to make a walk shorter takes longer than to read it
            print_blob=True,
        ),
    )
    print(dict(met.most_common()))
    assert {"done", "submit_unknown", "adopted", "sent again"} <= set(+met), "it has met too little to show anything"
