"""The plugins' own settings: what people have stored of them, and the defaults where nobody has.
Checks and deliveries read them with every call; `wishes` changes them. Secrets in them are `env:NAME`, never more.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel
from sqlalchemy import JSON, Connection
from sqlalchemy.orm import Mapped, mapped_column

from webapp import db
from webapp.batches.books import note
from webapp.batches.models import moment
from webapp.db import Base
from webapp.errors import NotFound
from webapp.hooks import PluginInfo, Registry
from webapp.records import jsontext

TARGET = "plugin"  # of events


class PluginSettings(Base):
    """What somebody wants of a plugin, checked by the plugin that was there then."""

    __tablename__ = "plugin_settings"

    plugin: Mapped[str] = mapped_column(primary_key=True)
    settings: Mapped[Any] = mapped_column(JSON)
    # It checks runs: where it cannot be loaded one day, nothing is sent that it would have been asked about.
    checks: Mapped[bool] = mapped_column(server_default="false")
    changed_at: Mapped[datetime] = moment(now=True)
    changed_by: Mapped[str]


def stored(tx: Connection, plugin: str) -> dict[str, Any]:
    """What is stored of a plugin's settings, by name; nothing where its defaults are as they were."""
    found = db.scalar(tx, "SELECT settings::text FROM plugin_settings WHERE plugin = :plugin", plugin=plugin)
    return {} if found is None else dict(jsontext.loads(found))


def settings_of(tx: Connection, registry: Registry, info: PluginInfo) -> BaseModel:
    """A plugin's own settings as they are now.

    :raises InputError: what is stored is not what the plugin takes, as after an upgrade; names each fault.
    """
    assert info.settings is not None, info.name  # the loader gives every plugin some
    return registry.parse_settings(info.settings, stored(tx, info.name))


def plugin_named(registry: Registry, name: str) -> PluginInfo:
    """A loaded plugin.

    :raises NotFound: there is none; the message names those there are.
    """
    found = next((info for info in registry.plugins if info.name == name), None)
    if found is None:
        known = ", ".join(sorted(info.name for info in registry.plugins)) or "none"
        raise NotFound(f"There is no plugin '{name}'. Those that are loaded: {known}.")
    return found


def configure(tx: Connection, registry: Registry, info: PluginInfo, changes: Mapping[str, Any], *, actor: str) -> bool:
    """Change some of a plugin's settings, and tell what changed; False where nothing did. May be repeated.

    :param changes: as people write them or as they are stored, by name; the others stay as they are.
    :raises InputError: the plugin does not take them; names each fault. Then nothing is changed.
    """
    own = info.settings
    assert own is not None, info.name
    # One after the other, so that nobody's change is lost and each event tells its own.
    db.run(tx, "SELECT pg_advisory_xact_lock(hashtextextended('plugin_settings ' || :plugin, 0))", plugin=info.name)
    # What is stored for a setting that the plugin no longer has is dropped: it would be in the way of any change.
    known = {name: value for name, value in stored(tx, info.name).items() if name in own.Settings.model_fields}
    new = registry.parse_settings(own, {**known, **changes}).model_dump(mode="json")
    old = {**own.Settings().model_dump(mode="json"), **known}
    changed = {name: value for name, value in new.items() if old[name] != value}
    if not changed:
        return False
    db.run(
        tx,
        "INSERT INTO plugin_settings (plugin, settings, checks, changed_by) "
        "VALUES (:plugin, CAST(:settings AS json), :checks, :actor) "
        "ON CONFLICT (plugin) DO UPDATE SET settings = excluded.settings, checks = excluded.checks, "
        "changed_at = now(), changed_by = excluded.changed_by",
        plugin=info.name,
        checks="check_run" in info.hooks,
        settings=jsontext.dumps(new).decode(),
        actor=actor,
    )
    told = ", ".join(f"{name} = {jsontext.dumps(value).decode()}" for name, value in changed.items())
    note(tx, run_id=None, target=(TARGET, info.name), actor=actor, reason=f"Settings changed: {told}.", kind="wish")
    return True
