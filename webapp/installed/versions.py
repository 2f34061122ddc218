"""Plugins that are installed: the wheels in the database, which version of each is in use, and who changed that.
People ask for changes through `webapp.wishes.plugins`; `webapp.installed.pluginset` loads what is in use.

Every change raises the generation of the set, whose row is locked first: changes come one after the other, and each
process sees by one number whether it has the present set. A run names the version that brings its task and keeps to it;
wheels are kept as long as that, whatever becomes of the plugin.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import JSON, CheckConstraint, Connection, ForeignKey, Integer, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from webapp import db
from webapp.batches.books import note
from webapp.batches.models import big_id, moment, one_of
from webapp.batches.states import InstallState, RunState
from webapp.db import Base
from webapp.errors import NotFound, Refused
from webapp.packages.wheels import Wheel

TARGET = "plugin"  # of events
OVER = (RunState.FINISHED.value, RunState.CANCELLED.value)
MOST_NAMED = 10  # runs in a sentence


class PluginVersion(Base):
    """One wheel: a version of a plugin that is, or was, installed. The row stays, its bytes as long as a run needs."""

    __tablename__ = "plugin_versions"
    __table_args__ = (UniqueConstraint("name", "sha256"),)

    id: Mapped[int] = big_id()
    name: Mapped[str]  # of the distribution, normalized
    version: Mapped[str]
    sha256: Mapped[str]
    file_name: Mapped[str]
    about: Mapped[Any] = mapped_column(JSON)  # of `webapp.packages.wheels.About`, and `brings`: what it registered
    wheel: Mapped[bytes | None]
    created_by: Mapped[str]
    created_at: Mapped[datetime] = moment(now=True)
    removed_at: Mapped[datetime | None] = moment()


class Plugin(Base):
    """An installed plugin and the version in use; or, without one, one of the environment that was disabled once."""

    __tablename__ = "plugins"

    name: Mapped[str] = mapped_column(primary_key=True)
    version_id: Mapped[int | None] = mapped_column(ForeignKey("plugin_versions.id"))
    former_version_id: Mapped[int | None] = mapped_column(ForeignKey("plugin_versions.id"))
    enabled: Mapped[bool] = mapped_column(server_default="true")
    changed_by: Mapped[str]
    changed_at: Mapped[datetime] = moment(now=True)


class PluginSet(Base):
    """One row: how often the set of plugins was changed. Its lock serialises changes."""

    __tablename__ = "plugin_set"
    __table_args__ = (CheckConstraint("id = 1", name="one"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    generation: Mapped[int] = mapped_column(server_default="0")
    changed_at: Mapped[datetime] = moment(now=True)


class PluginInstall(Base):
    """A plugin that somebody wants installed from the dashboard, and where that stands; see the step `install`."""

    __tablename__ = "plugin_installs"
    __table_args__ = (one_of("state", InstallState),)

    id: Mapped[int] = big_id()
    wanted: Mapped[str]  # a requirement, like `name` or `name==1.0`, or the name of an uploaded wheel
    wheel: Mapped[bytes | None]
    file_name: Mapped[str | None]
    name: Mapped[str | None]
    version: Mapped[str | None]
    sha256: Mapped[str | None]
    about: Mapped[Any | None] = mapped_column(JSON)
    state: Mapped[str] = mapped_column(server_default=InstallState.FETCHING.value)
    state_since: Mapped[datetime] = moment(now=True)
    reason: Mapped[str | None]
    traceback: Mapped[str | None]
    confirmed_by: Mapped[str | None]
    version_id: Mapped[int | None] = mapped_column(ForeignKey("plugin_versions.id"))
    created_by: Mapped[str]
    created_at: Mapped[datetime] = moment(now=True)


class Version(NamedTuple):
    """A version as it is loaded: everything but its bytes."""

    id: int
    name: str
    version: str
    sha256: str
    about: Any


# -- changes -----------------------------------------------------------------------------------------------------


def put(tx: Connection, wheel: Wheel, brings: Any, *, actor: str, upgrade: bool | None = None) -> int:
    """Bring a wheel into use, in place of the version before it, if any; the version's id. Runs in flight keep theirs.

    :param brings: what it registered when it was tried.
    :param upgrade: True: only where the plugin is installed already; False: only where it is not; None: either.
    :raises Refused: it is not as `upgrade` wants it, the wheel is in use already, or a module of it is another's.
    """
    _lock(tx)
    name, about = wheel.about.name, wheel.about
    now = _present(tx, name)
    if now is not None and now.version_id is not None:
        if upgrade is False:
            raise Refused(f"Plugin '{name}' is installed already, in version {now.version}: upgrade it.")
        if now.sha256 == wheel.sha256:
            raise Refused(f"Plugin '{name}' is at version {now.version} already, from the same wheel: nothing to do.")
    elif upgrade:
        raise Refused(f"Plugin '{name}' is not installed, so it cannot be upgraded: install it.")
    check_modules(tx, wheel)
    version_id: int = db.scalar(
        tx,
        "INSERT INTO plugin_versions (name, version, sha256, file_name, about, wheel, created_by) "
        "VALUES (:name, :version, :sha256, :file_name, CAST(:about AS json), :wheel, :actor) "
        "ON CONFLICT (name, sha256) DO UPDATE SET wheel = excluded.wheel, about = excluded.about, removed_at = NULL "
        "RETURNING id",
        name=name,
        version=about.version,
        sha256=wheel.sha256,
        file_name=wheel.file_name,
        about=json.dumps(about.as_json() | {"brings": brings}),
        wheel=wheel.content,
        actor=actor,
    )
    db.run(
        tx,
        "INSERT INTO plugins (name, version_id, changed_by) VALUES (:name, :version, :actor) "
        "ON CONFLICT (name) DO UPDATE SET former_version_id = plugins.version_id, version_id = :version, "
        "changed_by = :actor, changed_at = now()",
        name=name,
        version=version_id,
        actor=actor,
    )
    what = f"Version {about.version} installed"
    what += f" in place of {now.version}" if now is not None and now.version_id is not None else ""
    _changed(tx, name, actor, f"{what} (sha256 {wheel.sha256}).")
    return version_id


def roll_back(tx: Connection, name: str, *, actor: str) -> str:
    """Bring the version that was in use before into use again; its number. Once more, and the other is back.

    :raises NotFound: no such plugin is installed.
    :raises Refused: there was none before.
    """
    _lock(tx)
    now = _installed(tx, name)
    former = now.former_version_id and db.row(
        tx, "SELECT id, version, wheel IS NOT NULL AS kept FROM plugin_versions WHERE id = :id",
        id=now.former_version_id,
    )  # fmt: skip
    if not former or not former.kept:
        raise Refused(f"Plugin '{name}' has no former version to go back to: {now.version} is the first.")
    _use(tx, name, former.id, now.version_id, actor)
    _changed(tx, name, actor, f"Rolled back from version {now.version} to {former.version}.")
    version: str = former.version
    return version


def set_enabled(tx: Connection, name: str, enabled: bool, *, actor: str, environment: Collection[str] = ()) -> None:
    """Load a plugin for new work, or do not. Runs in flight go on in any case: pause or cancel them to stop them.

    :param environment: names of the plugins that are not installed, but shipped, or in the environment.
    :raises NotFound: there is no such plugin.
    :raises Refused: it is so already.
    """
    _lock(tx)
    now = _present(tx, name)
    if (now is None or now.version_id is None) and name not in environment:
        raise NotFound(f"There is no plugin '{name}'. `batchdesk plugins list` shows what there is.")
    word = "enabled" if enabled else "disabled"
    if enabled == (now is None or now.enabled):
        raise Refused(f"Plugin '{name}' is {word} already.")
    db.run(
        tx,
        "INSERT INTO plugins (name, enabled, changed_by) VALUES (:name, :enabled, :actor) "
        "ON CONFLICT (name) DO UPDATE SET enabled = :enabled, changed_by = :actor, changed_at = now()",
        name=name,
        enabled=enabled,
        actor=actor,
    )
    _changed(tx, name, actor, f"{word.capitalize()}.")


def remove(tx: Connection, name: str, *, actor: str) -> list[int]:
    """Take an installed plugin away; the runs that are not over and keep the version they name until they are.

    :raises NotFound: no such plugin is installed.
    """
    _lock(tx)
    now = _installed(tx, name)
    db.run(tx, "DELETE FROM plugins WHERE name = :name", name=name)
    # Waits for runs that are being started with one of them, which are then counted.
    db.run(tx, "UPDATE plugin_versions SET removed_at = now() WHERE name = :name AND removed_at IS NULL", name=name)
    needing = unfinished(tx, name)
    kept = f" Kept for {runs_named(needing)} until they are over." if needing else ""
    _changed(tx, name, actor, f"Removed; it was at version {now.version}.{kept}")
    return needing


def clear(tx: Connection) -> int:
    """Delete the wheels of removed plugins that no unfinished run needs any more; how many. May be repeated."""
    return db.run(
        tx,
        "UPDATE plugin_versions v SET wheel = NULL WHERE removed_at IS NOT NULL AND wheel IS NOT NULL AND NOT EXISTS "
        "(SELECT 1 FROM runs WHERE plugin_version_id = v.id AND NOT state = ANY(:over))",
        over=list(OVER),
    )


def check_modules(tx: Connection, wheel: Wheel) -> None:
    """:raises Refused: another installed plugin, in any version that is kept, brings a module of the same name."""
    for other in db.rows(
        tx, "SELECT name, version, about FROM plugin_versions WHERE wheel IS NOT NULL AND name <> :name ORDER BY id",
        name=wheel.about.name,
    ):  # fmt: skip
        both = sorted(set(wheel.about.modules) & set(other.about["modules"]))
        if both:
            raise Refused(
                f"It brings the module '{both[0]}', which the installed plugin '{other.name}' {other.version} brings "
                "too: only one of them can be imported. Its author must rename it, or remove the other plugin."
            )


def _lock(tx: Connection) -> None:
    """One change at a time."""
    db.run(tx, "INSERT INTO plugin_set (id) VALUES (1) ON CONFLICT DO NOTHING")
    db.run(tx, "SELECT 1 FROM plugin_set WHERE id = 1 FOR UPDATE")


def _changed(tx: Connection, name: str, actor: str, words: str) -> None:
    db.run(tx, "UPDATE plugin_set SET generation = generation + 1, changed_at = now() WHERE id = 1")
    note(tx, run_id=None, target=(TARGET, name), actor=actor, reason=words, kind="wish")
    clear(tx)


def _use(tx: Connection, name: str, version_id: int, former: int | None, actor: str) -> None:
    db.run(
        tx,
        "UPDATE plugins SET version_id = :version, former_version_id = :former, changed_by = :actor, "
        "changed_at = now() WHERE name = :name",
        name=name,
        version=version_id,
        former=former,
        actor=actor,
    )


def _present(tx: Connection, name: str) -> Any:
    return db.row(
        tx,
        "SELECT p.name, p.enabled, p.version_id, p.former_version_id, v.version, v.sha256 FROM plugins p "
        "LEFT JOIN plugin_versions v ON v.id = p.version_id WHERE p.name = :name",
        name=name,
    )


def _installed(tx: Connection, name: str) -> Any:
    now = _present(tx, name)
    if now is None or now.version_id is None:
        raise NotFound(f"Plugin '{name}' is not installed. `batchdesk plugins list` shows what is.")
    return now


# -- runs and their versions -------------------------------------------------------------------------------------


def hold_version(tx: Connection, version_id: int | None) -> None:
    """Pass when a new run may name a version; it is kept for that run from this transaction on.

    :raises Refused: its plugin was removed or disabled meanwhile.
    """
    if version_id is None:
        return
    found = db.row(
        tx,
        "SELECT v.name, v.version, v.removed_at IS NULL AND v.wheel IS NOT NULL AS there, "
        "(SELECT enabled FROM plugins p WHERE p.name = v.name) AS enabled FROM plugin_versions v WHERE v.id = :id "
        "FOR SHARE OF v",
        id=version_id,
    )
    if found is None or not found.there or not found.enabled:
        what = "plugin" if found is None else f"plugin '{found.name}'"
        how = "disabled" if found is not None and found.there else "removed"
        raise Refused(f"Nothing was started: the {what} that brings the task was {how} meanwhile.")


def move_on(tx: Connection, run_id: int, version_id: int | None) -> None:
    """Let a run go on with another version of its plugin: the one that is to process its answers again."""
    hold_version(tx, version_id)
    db.run(tx, "UPDATE runs SET plugin_version_id = :version WHERE id = :run", version=version_id, run=run_id)


def move_on_from_removed(tx: Connection, run_id: int, *, actor: str) -> None:
    """Let a run whose version is not kept any more go on with the one that is in use, where the plugin is back."""
    moved = db.row(
        tx,
        "UPDATE runs r SET plugin_version_id = p.version_id FROM plugin_versions v JOIN plugins p ON p.name = v.name "
        "JOIN plugin_versions n ON n.id = p.version_id WHERE r.id = :run AND v.id = r.plugin_version_id "
        "AND v.wheel IS NULL RETURNING v.name, v.version AS was, n.version",
        run=run_id,
    )
    if moved is not None:
        words = f"Version {moved.was} of plugin '{moved.name}' is not kept any more: it goes on with {moved.version}."
        note(tx, run_id=run_id, actor=actor, reason=words)


def unfinished(tx: Connection, name: str) -> list[int]:
    """The runs that are not over and name a version of a plugin."""
    found = db.rows(
        tx,
        "SELECT r.id FROM runs r JOIN plugin_versions v ON v.id = r.plugin_version_id "
        "WHERE v.name = :name AND NOT r.state = ANY(:over) ORDER BY r.id",
        name=name,
        over=list(OVER),
    )
    return [run_id for (run_id,) in found]


def runs_named(run_ids: Sequence[int]) -> str:
    """Runs as a sentence names them."""
    shown = ", ".join(str(run_id) for run_id in run_ids[:MOST_NAMED])
    more = f" and {len(run_ids) - MOST_NAMED:,} more" if len(run_ids) > MOST_NAMED else ""
    return f"run{'' if len(run_ids) == 1 else 's'} {shown}{more}"


# -- what is loaded ----------------------------------------------------------------------------------------------


def generation(tx: Connection) -> int:
    """How often the set of plugins was changed."""
    return int(db.scalar(tx, "SELECT generation FROM plugin_set") or 0)


def in_use(tx: Connection) -> list[Version]:
    """The versions that are loaded for new work, by the order in which their plugins came."""
    found = db.rows(
        tx,
        "SELECT v.id, v.name, v.version, v.sha256, v.about FROM plugins p "
        "JOIN plugin_versions v ON v.id = p.version_id WHERE p.enabled AND v.wheel IS NOT NULL ORDER BY "
        "(SELECT min(w.id) FROM plugin_versions w WHERE w.name = p.name)",
    )
    return [Version(*line) for line in found]


def disabled(tx: Connection) -> set[str]:
    """The names of the plugins of the environment that are not loaded for new work."""
    found = db.rows(tx, "SELECT name FROM plugins WHERE NOT enabled AND version_id IS NULL")
    return {name for (name,) in found}


def version(tx: Connection, version_id: int) -> Version:
    """A version that a run names.

    :raises NotFound: its plugin was removed, and its wheel is not kept any more; says what to do.
    """
    found = db.row(
        tx,
        "SELECT v.id, v.name, v.version, v.sha256, v.about, v.wheel IS NOT NULL AS kept, p.version_id AS used "
        "FROM plugin_versions v LEFT JOIN plugins p ON p.name = v.name WHERE v.id = :id",
        id=version_id,
    )
    if found is None or not found.kept:
        which = "a version" if found is None else f"version {found.version}"
        name = "its plugin" if found is None else f"plugin '{found.name}'"
        back = found is not None and found.used is not None
        mend = "Resume the run, and it goes on with the version in use." if back else (
            "Install that version again, or another, and resume the run.")  # fmt: skip
        raise NotFound(f"It needs {which} of {name}, which was removed and is not kept any more. {mend}")
    return Version(*found[:5])


def wheel_of(tx: Connection, version_id: int) -> bytes:
    """The bytes of a version's wheel.

    :raises NotFound: they are not kept any more.
    """
    content = db.scalar(tx, "SELECT wheel FROM plugin_versions WHERE id = :id", id=version_id)
    if content is None:
        raise NotFound("The wheel of the plugin is not kept any more: it was removed.")
    return bytes(content)
