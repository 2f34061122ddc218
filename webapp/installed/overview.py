"""What pages and commands show of plugins: what is installed, what is on its way, how each does, and whether the
processes agree. Reads only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection

from webapp import db
from webapp.batches.queries import SEEN_WITHIN
from webapp.batches.states import InstallState
from webapp.installed import versions

OPEN_INSTALLS = (InstallState.FETCHING, InstallState.WAITING, InstallState.INSTALLING)
MOST_FORMER = 100
LOOK = 2_000  # failures of a run, in which one of its processor is looked for
HEALTH_RUNS = 200  # the latest runs, which the health of tasks is told of


def installed(tx: Connection) -> Sequence[Any]:
    """The plugins that are installed: name, enabled, changed_by, changed_at, version_id, version, sha256, file_name,
    about, created_by, created_at of the version in use, `former` (the version to roll back to, or None) and `runs`,
    how many that are not over name any version of it.
    """
    return db.rows(
        tx,
        "SELECT p.name, p.enabled, p.changed_by, p.changed_at, v.id AS version_id, v.version, v.sha256, v.file_name, "
        "v.about, v.created_by, v.created_at, f.version AS former, (SELECT count(*) FROM plugin_versions w "
        "JOIN runs r ON r.plugin_version_id = w.id WHERE w.name = p.name AND NOT r.state = ANY(:over)) AS runs "
        "FROM plugins p JOIN plugin_versions v ON v.id = p.version_id "
        "LEFT JOIN plugin_versions f ON f.id = p.former_version_id AND f.wheel IS NOT NULL ORDER BY p.name",
        over=list(versions.OVER),
    )


def disabled(tx: Connection) -> Sequence[Any]:
    """The plugins of the environment that are disabled: name, changed_by, changed_at."""
    return db.rows(
        tx,
        "SELECT name, changed_by, changed_at FROM plugins WHERE version_id IS NULL AND NOT enabled ORDER BY name",
    )


def every_version(tx: Connection, name: str) -> Sequence[Any]:
    """All versions of a plugin there ever were, the latest first, `MOST_FORMER` at most: id, version, sha256,
    file_name, created_by, created_at, removed_at, `kept` (its wheel is there), `runs` (not over, that name it).
    """
    return db.rows(
        tx,
        "SELECT v.id, v.version, v.sha256, v.file_name, v.created_by, v.created_at, v.removed_at, "
        "v.wheel IS NOT NULL AS kept, (SELECT count(*) FROM runs r WHERE r.plugin_version_id = v.id "
        "AND NOT r.state = ANY(:over)) AS runs FROM plugin_versions v WHERE v.name = :name "
        "ORDER BY v.id DESC LIMIT :most",
        name=name,
        over=list(versions.OVER),
        most=MOST_FORMER,
    )


_INSTALL = (
    "SELECT i.id, i.wanted, i.file_name, i.name, i.version, i.sha256, i.about, i.state, i.state_since, i.reason, "
    "i.traceback, i.confirmed_by, i.version_id, i.created_by, i.created_at, octet_length(i.wheel) AS size, "
    "v.version AS present FROM plugin_installs i LEFT JOIN plugins p ON p.name = i.name "
    "LEFT JOIN plugin_versions v ON v.id = p.version_id"
)


def installs(tx: Connection, *, limit: int = 20) -> Sequence[Any]:
    """The installations asked for from the dashboard, the latest first, those under way before those that are over.

    :returns: the columns of `PluginInstall` but the wheel, its `size` in bytes, and `present`, the version in use of
        the same plugin, if any: then it is an upgrade.
    """
    return db.rows(
        tx,
        f"{_INSTALL} ORDER BY i.state = ANY(:open) DESC, i.id DESC LIMIT :limit",
        open=[state.value for state in OPEN_INSTALLS],
        limit=limit,
    )


def install(tx: Connection, install_id: int) -> Any:
    """One of `installs`, or None."""
    return db.row(tx, f"{_INSTALL} WHERE i.id = :id", id=install_id)


class Health(NamedTuple):
    """How a task has done lately: over the latest `HEALTH_RUNS` runs of all tasks.

    :param outputs: answers that its processor has seen; `invalid` of them were no use.
    :param error: why the latest that was no use was so, with its run.
    """

    task: str
    runs: int
    outputs: int
    invalid: int
    error: str | None
    error_run_id: int | None

    @property
    def failure_rate(self) -> float | None:
        """The share of answers that were no use; None: there was none."""
        return self.invalid / self.outputs if self.outputs else None


def health(tx: Connection) -> dict[str, Health]:
    """How each task has done lately, by its name."""
    found = db.rows(
        tx,
        "WITH latest AS (SELECT id, task FROM runs ORDER BY id DESC LIMIT :runs), counted AS ("
        "SELECT r.id, r.task, coalesce(t.ok, 0) AS ok, coalesce(t.invalid, 0) AS invalid FROM latest r "
        "CROSS JOIN LATERAL (SELECT sum(ok) AS ok, sum(invalid) AS invalid FROM tallies WHERE run_id = r.id "
        "AND scope = 'items') AS t) SELECT task, count(*) AS runs, sum(ok) AS ok, sum(invalid) AS invalid, "
        "max(id) FILTER (WHERE invalid > 0) AS bad FROM counted GROUP BY task ORDER BY task",
        runs=HEALTH_RUNS,
    )
    return {
        one.task: Health(one.task, one.runs, int(one.ok + one.invalid), int(one.invalid), _why(tx, one.bad), one.bad)
        for one in found
    }


def _why(tx: Connection, run_id: int | None) -> str | None:
    """Why the last record of a run whose answer was no use was so."""
    found: str | None = db.scalar(
        tx,
        # As the index of failures has them; the last of them are nearly always of the processor.
        "SELECT error FROM (SELECT id, error, output_state FROM items WHERE run_id = :run "
        "AND failure_class IS NOT NULL ORDER BY id DESC LIMIT :look) AS failed "
        "WHERE output_state = 'invalid' ORDER BY id DESC LIMIT 1",
        run=run_id,
        look=LOOK,
    )
    return found


class Agreement(NamedTuple):
    """Whether the processes have the set of plugins as it is now.

    A web process that nobody has asked for a page since the last change is no exception: it takes the set up before it
    answers the next.

    :param processes: name, role, seen_at, generation, plugin_problems (each with plugin, source, error, traceback)
        and asleep (a web process that was not asked for a page since the last change) of the web and worker processes
        that were seen lately. The clock loads no plugin.
    """

    generation: int
    processes: Sequence[Any]

    @property
    def behind(self) -> list[str]:
        """The processes that have not taken up the present set yet."""
        return [one.name for one in self.processes if one.generation != self.generation and not one.asleep]

    @property
    def taken_up(self) -> list[str]:
        """The processes that have the present set."""
        return [one.name for one in self.processes if one.generation == self.generation]

    @property
    def asleep(self) -> list[str]:
        """The web processes that take it up before their next page."""
        return [one.name for one in self.processes if one.generation != self.generation and one.asleep]

    @property
    def troubled(self) -> list[str]:
        """The processes that could not load all of it."""
        return [one.name for one in self.processes if one.plugin_problems]

    @property
    def agree(self) -> bool:
        return not self.behind


def agreement(tx: Connection) -> Agreement:
    """Whether all processes have taken up the present set, and what could not be loaded where."""
    return Agreement(
        versions.generation(tx),
        db.rows(
            tx,
            "SELECT name, role, seen_at, generation, plugin_problems, role = 'web' AND seen_at < "
            "coalesce((SELECT changed_at FROM plugin_set), seen_at) AS asleep FROM processes WHERE role <> 'clock' "
            "AND seen_at > now() - make_interval(secs => :within) ORDER BY role, name",
            within=SEEN_WITHIN,
        ),
    )
