"""A plugin that tells what it was given, for tests that deliver: its sink and its hook append lines to a file.

What the file `orders` beside it says is done once and taken away, at the next call: `raise`, `exit`, or a statement of
Python.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.desk import DeskDriver, documents

from webapp import db, wishes
from webapp.delivery.delivering import ACTOR

FOLDER = "told"
SOURCE = """
import json, os
from pathlib import Path
from pydantic import BaseModel
from webapp.hooks import InvalidOutput, ModelSettings, Secret, Sink, Task, hookimpl

def orders(folder):
    path = Path(folder) / "orders"
    text = path.read_text() if path.exists() else ""
    path.unlink(missing_ok=True)
    return text

class To(BaseModel):
    folder: str
    secret: Secret = "env:NOT_THERE"

class Teller(Sink[To]):
    name = "teller"
    Settings = To

    def deliver(self, run, outputs, settings, key):
        line = {"key": key, "run": run.id, "state": run.state, "counts": dict(run.counts), "outputs": [
            [o.custom_id, o.key, o.status, o.output, o.error, dict(o.data)] for o in outputs]}
        order = orders(settings.folder)
        if order.startswith("refuse"):
            raise ValueError("not now, " + os.environ.get("TELLER_SECRET", ""))
        with (Path(settings.folder) / "lines").open("a") as file:
            file.write(json.dumps(line) + "\\n")
        exec(order)

class Echo(Task[ModelSettings]):
    name = "echo"
    version = "VERSION"
    Settings = ModelSettings

    def shared_params(self, settings):
        return settings.base_params()

    def request_params(self, subject, settings):
        return {"messages": [{"role": "user", "content": subject.text}]}

    def process(self, subject, message, settings):
        if subject.key in USELESS:
            raise InvalidOutput("no use")
        return {"by": "VERSION"}

@hookimpl
def register_sinks():
    return [Teller()]

@hookimpl
def register_tasks():
    return [Echo()]
"""
HOOK = """
@hookimpl
def on_run_finished(run, settings, key):
    order = orders("FOLDER")
    if order.startswith("refuse"):
        raise ValueError("cannot tell")
    with (Path("FOLDER") / "hooked").open("a") as file:
        file.write(json.dumps([key, run.id, run.state, run.url, dict(run.counts)]) + "\\n")
    exec(order)
"""


class Teller:
    """What the plugin was told, and what it is to do next."""

    def __init__(self, desk: DeskDriver, tmp_path: Path, *, hook: bool = False) -> None:
        self.desk = desk
        self.folder = tmp_path / FOLDER
        self.folder.mkdir()
        self._plugins = tmp_path / "own"
        self._hook = hook
        self.install()

    def install(self, version: str = "1", useless: tuple[str, ...] = ()) -> None:
        """Load the plugin, with a version of its task that finds the answers of some records no use."""
        source = SOURCE + HOOK.replace("FOLDER", str(self.folder)) * self._hook
        self.desk.use_plugin(self._plugins, source.replace("VERSION", version).replace("USELESS", repr(useless)))

    def destination(self, name: str = "there") -> int:
        """Save a destination of the sink; its id."""
        return wishes.ask_make_destination(name, "teller", {"folder": str(self.folder)}, actor="tester")

    def run(self, count: int = 5, to: str = "there") -> int:
        """A run over some records that is over, and nothing of it delivered yet; its id."""
        run_id = self.start(count, to)
        self.desk.work_until_over(run_id)
        return run_id

    def start(self, count: int = 5, to: str = "there") -> int:
        run_id = self.desk.start(documents(count), task="echo", model="claude-haiku-5-5")
        with db.transaction() as tx:
            db.run(
                tx,
                "INSERT INTO run_destinations (run_id, destination_id) SELECT :run, id FROM destinations "
                "WHERE name = ANY(CAST(:names AS text[]))",
                run=run_id,
                names=db.array(to.split(",")),
            )
        return run_id

    def order(self, what: str) -> None:
        """Do that at the next call."""
        (self.folder / "orders").write_text(what)

    def work(self, times: int = 30) -> None:
        """Deliver until nothing more is to be delivered; waits are over at once."""
        for _ in range(times):
            if not self.desk.rows("SELECT target_id FROM steps WHERE step = 'deliver'"):
                return
            self.desk.hurry()
            self.desk.perform_due()
        raise AssertionError(f"deliveries do not end: {self.states()}")

    @property
    def told(self) -> list[dict[str, Any]]:
        """Each part that the sink has taken."""
        return [json.loads(line) for line in self._lines("lines")]

    @property
    def keys(self) -> list[str]:
        """The keys of all records that the sink has taken, in order."""
        return [output[1] for part in self.told for output in part["outputs"]]

    @property
    def hooked(self) -> list[list[Any]]:
        """Each call of the hook that came through."""
        return [json.loads(line) for line in self._lines("hooked")]

    def states(self) -> list[tuple[Any, ...]]:
        """(kind, name, round, state) of every delivery, but of news that plugins have not been told yet."""
        statement = "SELECT kind, name, round, state FROM deliveries WHERE kind <> 'news' ORDER BY id"
        return [tuple(one) for one in self.desk.rows(statement)]

    def only(self, kind: str = "") -> Any:
        """The one delivery there is, of its kind if one is given, else but for news."""
        (found,) = self.desk.rows(
            "SELECT * FROM deliveries WHERE kind = :kind OR (:kind = '' AND kind <> 'news')", kind=kind
        )
        return found

    def events(self) -> list[str]:
        """What the step has said."""
        found = self.desk.rows("SELECT reason FROM events WHERE actor = :actor ORDER BY id", actor=ACTOR)
        return [reason for (reason,) in found]

    def _lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []
