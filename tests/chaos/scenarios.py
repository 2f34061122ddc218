"""The ways a run can go, one after the other, which together pass every boundary there is.

`discover` performs them in this process, without killing anybody, and notes the fault points that each passes: that is
the list which rounds and sweeps strike at. A place that no scenario passes fails `test_points.py`.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from PIL import Image as Picture
from support.audit import TABLE
from support.desk import DeskDriver, documents
from support.plugin_wheels import file_name, wheel
from support.uploading import Uploads

from chaos.boundaries import Watch, watch
from chaos.household import PATIENCE, TABLE_URL, TAKEN_FROM, Household, Workshop
from chaos.orders import LEAVE, STALL, WAIT, WAIT_SECONDS
from chaos.points import Point
from webapp import db, wishes
from webapp.batches import leaving
from webapp.batches.completion import pause_run
from webapp.batches.naming import new_token
from webapp.batches.states import FailureClass
from webapp.batches.steps import Lease, StepName, due
from webapp.errors import BatchdeskError
from webapp.money.caps import Scope
from webapp.money.priming import Prime
from webapp.runs import retention
from webapp.runs.schedules import Wanted
from webapp.runs.staleness import Over
from webapp.runs.verbs import PLAIN, Manner

RECORDS = 24
FEW = 6
IMAGES = 3
OWN_MODULE = "chaos_stamping"

# Moments of a run to click at, as queries that find something.
PLANNED = "SELECT 1 FROM batches WHERE run_id = :run"
AT_THE_API = f"{PLANNED} AND state = 'in_progress'"
POSTING = (
    "SELECT 1 FROM submissions s JOIN batches b ON b.id = s.batch_id "
    "WHERE b.run_id = :run AND s.outcome IS NULL AND s.armed_at IS NULL"
)
SENT = "SELECT 1 FROM accounts"
FAILED = "SELECT 1 FROM items WHERE run_id = :run AND failure_class = 'fix'"
REFUSED = "SELECT 1 FROM uploads WHERE state = 'refused'"
UPLOADED = "SELECT 1 FROM uploads WHERE state <> 'imported'"
COMPARED = "SELECT 1 FROM uploads WHERE state = 'compared'"
REPEATED = (
    "SELECT 1 FROM schedules s JOIN runs r ON r.dataset_id = s.dataset_id WHERE r.id = :run AND s.outcome IS NOT NULL"
)
LOOKED_INTO = (
    "SELECT 1 FROM plugin_installs WHERE state = 'waiting' "
    "AND NOT EXISTS (SELECT 1 FROM plugin_installs WHERE state = 'fetching')"
)
INSTALLED = "SELECT 1 FROM plugins WHERE version_id IS NOT NULL"
PAUSED = "SELECT 1 FROM runs WHERE id = :run AND state = 'paused'"
FORMER = "SELECT 1 FROM runs WHERE id < :run AND state = 'finished'"
REFUSING = "SELECT 1 FROM deliveries WHERE run_id = :run AND failures > 0"


@dataclass(frozen=True)
class Scenario:
    """What is run, what the API does meanwhile, and what a person does.

    :param clicks: (when, what): each is done once, as soon as a query finds something.
    :param strike: fault points at which something happens in any case, and what.
    :param plugin: one is installed, one is installed twice, and one is no use.
    :param uploads: one file becomes a dataset, another refreshes that of the run.
    :param limited: its run is larger than the limit that is set just then.
    :param delivers: its outputs go to a table beside ours, which cannot be written at first where it `refuses`.
    :param manner: how careful its run is.
    :param neighbour: how many requests a batch of somebody else in the workspace has, if there is one.
    """

    name: str
    task: str = "classify"
    records: int = RECORDS
    api: Mapping[str, Any] = field(default_factory=dict)
    clicks: tuple[tuple[str, str], ...] = ()
    strike: tuple[tuple[str, str], ...] = ()
    neighbour: int = 0
    uploads: bool = False
    plugin: bool = False
    delivers: bool = False
    refuses: bool = False
    limited: bool = False
    manner: Manner = PLAIN


SCENARIOS = (
    Scenario("calm"),
    Scenario("images", task="alt_text", records=IMAGES),
    Scenario(
        "sent again",
        task="summarise",
        api={"overloaded_share": 0.3, "expired_share": 0.2, "invalid_share": 0.2},
        clicks=((SENT, "look"), (FAILED, "resubmit"), (SENT, "schedule"), (REPEATED, "end schedules")),
    ),
    Scenario(
        "no clear answer",
        api={"create_faults": "drop_after,drop_before,500_after", "list_faults": "ok,ok,ok,500*2"},
    ),
    Scenario(
        "not now",
        api={"create_faults": "429:0,413,ok,429:0,ok,401", "list_faults": "500,ok,429:0"},
        clicks=((PAUSED, "resume"),),
    ),
    Scenario(
        "held and let go",
        records=FEW,
        api={"create_faults": "drop_before", "list_faults": "ok,401"},
        neighbour=FEW,
    ),
    Scenario(
        "broken off",
        records=FEW,
        api={"create_faults": "drop_early"},
        strike=(("submit:submission._arm:committed:1", "wait"),),
    ),
    Scenario("asked to end", strike=(("ingest:ingestion._store:committed:1", "leave"),)),
    Scenario(
        "results in trouble",
        api={"results_faults": "500,404,truncate:900,missing:1,duplicate:2+garbage:1+unknown:1,crlf+blank"},
    ),
    Scenario("polls in trouble", api={"retrieve_faults": "500,404,401,429:0,ok,drop_before,garbled"}),
    Scenario("cancelled", api={"delay": 2.0, "cancel_delay": 0.0}, clicks=((AT_THE_API, "cancel"),)),
    Scenario("cancelled before it was sent", api={"list_faults": "500*3"}, clicks=((PLANNED, "cancel"),)),
    Scenario(
        "stopped while it is sent",
        clicks=((POSTING, "pause"), (PAUSED, "resume")),
        strike=(("submit:submission._send.2:committed:1", "stall"),),
    ),
    Scenario(
        "dead while it is sent",
        strike=(("submit:gateway.create:sent:1", "kill"), ("submit:gateway.create:sending:1", "kill")),
    ),
    Scenario("refused, then cancelled", records=FEW, limited=True, clicks=((PAUSED, "unlimit"), (PAUSED, "cancel"))),
    Scenario("a plugin comes in", records=FEW, plugin=True, clicks=((LOOKED_INTO, "confirm"), (INSTALLED, "stamp"))),
    Scenario("payloads of former runs go", records=FEW, clicks=((FORMER, "drop"),)),
    Scenario("delivered", delivers=True, refuses=True, clicks=((REFUSING, "mend"),)),
    Scenario("capped, then raised", manner=Manner(cap_usd=Decimal("0.0005")), clicks=((PAUSED, "raise"),)),
    Scenario("a pilot goes ahead", manner=Manner(pilot=5, prime=Prime.ON), clicks=((PAUSED, "resume"),)),
    Scenario("files come in", records=FEW, uploads=True, clicks=((REFUSED, "skip"), (COMPARED, "refresh"))),
)


def prepare(household: Household, scenario: Scenario) -> None:
    """Let the API behave as a scenario wants it, with a batch of somebody else in it where there is one."""
    household.api.configure(**CALM_API)
    household.neighbour(scenario.neighbour)
    household.api.configure(**scenario.api)


def start(desk: DeskDriver, scenario: Scenario, folder: Path) -> int:
    """Start the run of a scenario; its id.

    :param folder: where images are put, if it is about images.
    """
    if scenario.limited:
        wishes.ask_configure("limits", {"most_records": "1"}, actor="chaos")
    if scenario.task != "alt_text":
        run_id = desk.start(documents(scenario.records), task=scenario.task, manner=scenario.manner)
        if scenario.uploads:
            upload(desk, run_id)
            take_in()
        if scenario.plugin:
            want_plugins(f"1.{run_id}")
        if scenario.delivers:
            _deliver(desk, run_id, refuses=scenario.refuses)
        return run_id
    folder.mkdir()
    for n in range(scenario.records):
        Picture.new("RGB", (8, 8), (n, n, n)).save(folder / f"{n}.png")
    return desk.start_folder(folder, scenario.task)


def want_plugins(version: str) -> None:
    """Ask for a version of a plugin twice, and for one that is no plugin."""
    made = wheel(version, module=OWN_MODULE)
    for content in (made, made, wheel(version, module=OWN_MODULE, entry_points="")):
        wishes.ask_plugin_fetch(file_name(version), content=content, actor="chaos")


def click_on_plugins(desk: DeskDriver, run_id: int, what: str) -> None:
    """Confirm what waits, or start a run of the task that was installed, over the dataset of another."""
    with suppress(BatchdeskError):
        if what == "confirm":
            for (install_id,) in desk.rows("SELECT id FROM plugin_installs WHERE state = 'waiting' ORDER BY id"):
                wishes.ask_plugin_install(install_id, actor="chaos")
            return
        dataset = desk.scalar("SELECT dataset_id FROM runs WHERE id = :id", id=run_id)
        desk.desk.take_up()
        wishes.ask_start(dataset, "stamp", {}, over=Over.ALL, actor="chaos", token=new_token())
        shutil.rmtree(desk.desk.settings.home / "plugins")  # as on another machine, which has it to come


def _deliver(desk: DeskDriver, run_id: int, *, refuses: bool) -> None:
    """Let the outputs of a run go to the table, which is there already, and another, if it refuses."""
    if not desk.scalar("SELECT count(*) FROM destinations"):
        settings = {"url": f"env:{TABLE_URL}", "table": TABLE, "identity": "custom_id"}
        wishes.ask_make_destination("chaos", "sql_table", settings, actor="chaos")
    if refuses:
        desk.execute(f"CREATE TABLE IF NOT EXISTS {TABLE} (nothing int)")
    wishes.ask_deliver(run_id, ["chaos"], actor="chaos")


def upload(desk: DeskDriver, run_id: int) -> None:
    """Upload a file with a record that is no use, and one that refreshes the dataset of a run."""
    sent = Uploads(desk)
    dataset = desk.scalar("SELECT dataset_id FROM runs WHERE id = :id", id=run_id)
    sent.ask(sent.store("new.csv", b"key,text\na,alpha\n,nobody\n"))
    sent.ask(sent.store("next.csv", b"key,text\ndoc-0,changed\nnew,beta\n", dataset_id=dataset))


def take_in() -> None:
    """Ask for the records of a source: one, in a file of the household's."""
    name = f"{new_token()}.csv"
    (Path(os.environ[TAKEN_FROM]) / name).write_text("key,text\na,alpha\n")
    wishes.ask_source("files", {"path": name}, dataset_name="taken in", actor="chaos", token=new_token())


def click_on_uploads(desk: DeskDriver, what: str) -> None:
    """What a person does with the uploads that wait."""
    sent = Uploads(desk)
    state = {"skip": "refused", "refresh": "compared"}[what]
    for (upload_id,) in desk.rows("SELECT id FROM uploads WHERE state = :state ORDER BY id", state=state):
        with suppress(BatchdeskError):
            if what == "skip":
                sent.ask(upload_id, skip_bad=True)
            else:
                wishes.ask_refresh(upload_id, remove_absent=True, actor="chaos")


def click(run_id: int, what: str) -> None:
    """What a person does with a run; refused where it makes no sense just then."""
    with suppress(BatchdeskError):
        if what == "cancel":
            wishes.ask_cancel_run(run_id, actor="chaos")
        elif what == "resubmit":
            wishes.ask_resubmit(run_id, list(FailureClass), actor="chaos")
        elif what == "unlimit":
            wishes.ask_configure("limits", {"most_records": ""}, actor="chaos")
        elif what == "raise":
            wishes.ask_cap(Scope.RUN, str(run_id), Decimal(1), actor="chaos")
            wishes.ask_resume(run_id, actor="chaos")
        elif what == "look":
            wishes.ask_look(actor="chaos")
        elif what == "resume":
            wishes.ask_resume(run_id, actor="chaos")
        elif what == "schedule":
            _schedule(run_id)
        elif what == "end schedules":
            for (schedule_id,) in _rows("SELECT id FROM schedules"):
                wishes.ask_delete_schedule(schedule_id, actor="chaos")
        elif what == "drop":
            _drop(run_id)
        elif what == "mend":
            with db.transaction() as tx:
                db.run(tx, f"DROP TABLE {TABLE}")
        elif what == "pause":
            with db.transaction() as tx:
                pause_run(tx, run_id, "A person wants it so.", actor="chaos")


def _schedule(run_id: int) -> None:
    """Let a run repeat, over what has no output yet; its time has come."""
    ((dataset_id, task),) = _rows("SELECT dataset_id, task FROM runs WHERE id = :run", run=run_id)
    yearly = Wanted("chaos", Over.STALE, "0 0 1 1 *", "UTC")
    schedule_id = wishes.ask_schedule(dataset_id, task, {}, yearly, actor="chaos", token=new_token())
    with db.transaction() as tx:
        db.run(tx, "UPDATE schedules SET next_at = now() WHERE id = :id", id=schedule_id)
        due(tx, StepName.REPEAT, schedule_id)


def _drop(run_id: int) -> None:
    """Let the runs before one have been over for so long that their payloads go."""
    with db.transaction() as tx:
        db.run(tx, "UPDATE runs SET state_since = now() - interval '2 days' WHERE id < :run", run=run_id)
        due(tx, StepName.DROP, retention.TARGET)


def _rows(statement: str, **parameters: Any) -> Sequence[Any]:
    with db.transaction() as tx:
        return db.rows(tx, statement, **parameters)


class Clicks:
    """The clicks of a scenario that are still to come."""

    def __init__(self, desk: DeskDriver, scenario: Scenario, run_id: int) -> None:
        self._desk = desk
        self._run = run_id
        self._left = list(scenario.clicks)

    def due(self) -> None:
        """Click if the next one's moment has come."""
        if self._left and self._desk.scalar(self._left[0][0], run=self._run):
            what = self._left.pop(0)[1]
            if what in ("skip", "refresh"):
                click_on_uploads(self._desk, what)
            elif what in ("confirm", "stamp"):
                click_on_plugins(self._desk, self._run, what)
            else:
                click(self._run, what)


# Every setting that a scenario changes, as it is where nothing is wrong.
CALM_API: dict[str, Any] = {
    "delay": 0.0,
    "cancel_delay": 0.0,
    **dict.fromkeys((f"{verb}_faults" for verb in ("create", "retrieve", "list", "results", "cancel")), ""),
    **dict.fromkeys(
        (f"{what}_share" for what in ("errored", "overloaded", "invalid", "expired", "missing", "nasty")), 0.0
    ),
}


QUICK = {"BATCHDESK_MISSING_WAIT": "0.3", "BATCHDESK_UNKNOWN_GRACE": "1.5"}  # nothing is late here


class Killed(BaseException):
    """Stands for a death in this process: nothing of ours catches it."""


def discover(workshop: Workshop, scenarios: Sequence[Scenario] = SCENARIOS) -> dict[Point, Scenario]:
    """Each fault point with the first scenario that passes it; performed in this process, step by step."""
    found: dict[Point, Scenario] = {}
    with workshop.household(workers=0, clocks=0, settings=QUICK) as household:
        for scenario in scenarios:
            prepare(household, scenario)
            for point in sorted(_passed(household, scenario)):
                found.setdefault(point, scenario)
    return found


def _passed(household: Household, scenario: Scenario) -> set[Point]:
    passed: set[Point] = set()
    strike = dict(scenario.strike)
    run_id = start(household.desk, scenario, household.folder / scenario.name)
    clicks = Clicks(household.desk, scenario, run_id)

    def act(point: Point, lease: Lease) -> None:
        passed.add(point)
        what = strike.pop(str(point), None)
        if what == STALL:
            one.lease = None  # what a person does now is no part of the step
            clicks.due()
            one.lease = lease
        elif what == WAIT:
            time.sleep(WAIT_SECONDS)
        elif what == LEAVE:
            leaving.ask()
        elif what is not None:
            raise Killed

    one = Watch(act)
    with watched(one):
        _perform(household.desk, run_id, clicks)
    assert not strike, f"'{scenario.name}' does not come to {list(strike)}"
    return passed


def _perform(desk: DeskDriver, run_id: int, clicks: Clicks) -> None:
    deadline = time.monotonic() + PATIENCE
    while not (desk.status(run_id).over and not desk.rows("SELECT 1 FROM steps") and not desk.rows(UPLOADED)):
        assert time.monotonic() < deadline, f"it does not end: {desk.status(run_id)}"
        clicks.due()
        with suppress(Killed):
            desk.lapse()
            desk.hurry()
            performed = desk.perform_due()
            leaving.stay()  # another worker goes on
            if not performed:
                time.sleep(0.05)


@contextmanager
def watched(one: Watch) -> Iterator[None]:
    """Watch this process's boundaries for a while."""
    before: list[tuple[Any, str, Any]] = []

    def patch(owner: Any, name: str, value: Any) -> None:
        before.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    watch(one, patch)
    try:
        yield
    finally:
        for owner, name, value in reversed(before):
            setattr(owner, name, value)
