"""The step `install`: a plugin's wheel is got and looked into; once a person has confirmed it, it is tried in a process
of its own, and kept. Runs in a worker, holding the step's lease; killed anywhere, it is done again.

`tried` serves the command line too, which does the same in one go.
"""

from __future__ import annotations

import tempfile
import traceback
from pathlib import Path
from typing import Any

from webapp import db
from webapp.batches import leaving
from webapp.batches.bounded import Broke, bounded
from webapp.batches.desk import Desk
from webapp.batches.states import InstallState, move_install
from webapp.batches.steps import Lease
from webapp.errors import BatchdeskError, InputError, PluginError
from webapp.installed import installs, pluginset, versions
from webapp.packages import fetching, host, unpacking, wheels
from webapp.packages.wheels import Wheel

ACTOR = "install"


class Untried(PluginError):
    """A plugin did not load when it was tried.

    :param traceback: where it happened in its code, or empty.
    """

    def __init__(self, words: str, trace: str = "") -> None:
        super().__init__(words)
        self.traceback = trace


def install(desk: Desk, lease: Lease) -> float | None:
    """Do what was asked of an installation. May be repeated: it is installed once."""
    with db.transaction() as tx:
        lease.hold(tx)
        wanted = installs.found(tx, lease.target_id)
        content = installs.wheel_of(tx, lease.target_id)
    if wanted.state not in (InstallState.FETCHING, InstallState.INSTALLING):
        return None
    try:
        wheel = _wheel(wanted, content)
        check(desk, wheel)
        brings = tried(desk, wheel) if wanted.state == InstallState.INSTALLING else None
    except (InputError, PluginError) as error:
        with db.transaction() as tx:
            lease.hold(tx)
            trace = getattr(error, "traceback", "")
            installs.refuse(tx, wanted.id, str(error), actor=ACTOR, traceback=trace)
        return None
    if brings is None:
        with db.transaction() as tx:
            lease.hold(tx)
            installs.looked_into(tx, wanted.id, wheel, actor=ACTOR)
    else:
        _keep(lease, wanted, wheel, brings)
    return None


def _wheel(wanted: Any, content: bytes | None) -> Wheel:
    if content is None:
        return fetching.from_index(wanted.wanted, leaving.look)
    return wheels.read(content, wanted.file_name)


def _keep(lease: Lease, wanted: Any, wheel: Wheel, brings: Any) -> None:
    """Bring it into use, in the name of who confirmed it; unless that is refused now."""
    try:
        with db.transaction() as tx:
            lease.hold(tx)
            version_id = versions.put(tx, wheel, brings, actor=wanted.confirmed_by or wanted.created_by)
            move_install(tx, wanted.id, InstallState.INSTALLED, actor=ACTOR, version_id=version_id, wheel=None)
    except BatchdeskError as error:
        with db.transaction() as tx:
            lease.hold(tx)
            installs.refuse(tx, wanted.id, str(error), actor=ACTOR)


def check(desk: Desk, wheel: Wheel) -> None:
    """Pass when a wheel can be installed here, beside what is installed.

    :raises InputError: the host lacks what it needs, or a name is taken.
    :raises Refused: by another installed plugin.
    """
    host.check(wheel.about, apart_from=pluginset.folders(desk.settings))
    if wheel.about.name in desk.loader.environment():
        raise InputError(f"There is a plugin '{wheel.about.name}' already, which is shipped or in the environment.")
    with db.transaction() as tx:
        versions.check_modules(tx, wheel)


def tried(desk: Desk, wheel: Wheel) -> Any:
    """What a plugin registers when it is loaded beside the others, in a process that is bounded in time and memory.

    :raises Untried: it breaks the contract, or its process; names it and says where.
    """
    about = wheel.about
    others = pluginset.beside(desk.settings, about.name)
    with tempfile.TemporaryDirectory(prefix="batchdesk-trial-") as name:
        folder = unpacking.unpacked(Path(name), about.name, about.version, wheel.sha256, lambda: wheel.content)

        def work(_: None) -> Any:
            try:
                return pluginset.trial(desk.loader, others, about, folder)
            except MemoryError:
                raise
            except Exception:  # noqa: BLE001 - told as ours, with where it was
                return {"problems": [(f"Plugin '{about.name}' broke while it was tried.", traceback.format_exc())]}

        ((_, found),) = bounded([None], work)
    if isinstance(found, Broke):
        raise Untried(f"Plugin '{about.name}' {about.version} {found.words} when it was tried. Mend it.")
    if found["problems"]:
        words, trace = found["problems"][0]
        raise Untried(words, trace)
    return found["brings"]
