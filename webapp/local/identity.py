"""Which user the embedded services run as. Only the services of this package ask.

An ordinary user's services run as that user. PostgreSQL refuses to run as root, so root's services run under a
number of their own: one that belongs to nobody, so that no other account, `nobody` included, shares the files, and
no account has to be made. It is drawn once for each home; the data folder's owner is its record.
"""

from __future__ import annotations

import os
import pwd
import random
import sys
from dataclasses import dataclass
from pathlib import Path

from webapp.errors import LocalServicesError
from webapp.local.home import OWN_SERVERS

# systemd's table of user numbers keeps these free: above people (60513), below its dynamic services (61184). They
# are under 65536, so they exist in containers with a user namespace as well.
FREE_NUMBERS = range(60706, 61184)

# From linux/capability.h. The first lets a process read and enter any folder; Docker withholds it but gives the
# second, which also lets it write.
CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_SETGID, CAP_SETUID = 0, 1, 2, 6, 7

CUT_DOWN_ROOT = (
    "The embedded PostgreSQL does not run as root, and this root may not change to another user (its container or"
    f" its capabilities do not let it). Run Batchdesk as an ordinary user. {OWN_SERVERS}"
)


@dataclass(frozen=True)
class Identity:
    """A user to run as; ``switch`` tells whether that is another one than ours."""

    uid: int
    gid: int
    switch: bool = False
    capability: int | None = None


def ourselves() -> Identity:
    """Return the identity of this process; raises LocalServicesError for a uid without a name."""
    user_name()
    return Identity(os.geteuid(), os.getegid())


def user_name() -> str:
    """Return this user's name, which PostgreSQL asks the system for."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise LocalServicesError(
            f"The embedded PostgreSQL cannot run as user number {os.geteuid()}, which has no entry in the system's"
            f" list of users (/etc/passwd). Run Batchdesk as a user that has one. {OWN_SERVERS}"
        ) from None


def identity_for(data: Path, paths: tuple[Path, ...]) -> Identity:
    """Return whom to run services as that own the folder ``data`` and need to read ``paths``."""
    if os.geteuid() != 0:
        return ourselves()
    user_name()
    _check_rights()
    return switched(_recorded(data) or _free_number(), paths)


def initdb_identity(paths: tuple[Path, ...]) -> Identity:
    """Return whom to run `initdb` as: it insists on a user with a name, so root lends it `nobody`'s for a second.

    The folder it fills is closed to others, and is handed to the services' own number before it is used.
    """
    if os.geteuid() != 0:
        return ourselves()
    named = [entry for entry in pwd.getpwall() if entry.pw_uid != 0]
    chosen = next((entry for entry in named if entry.pw_name == "nobody"), named[0] if named else None)
    if chosen is None:
        raise LocalServicesError(
            "The embedded PostgreSQL does not run as root, and the system's list of users (/etc/passwd) has no"
            f" other user to set it up as. {OWN_SERVERS}"
        )
    return switched((chosen.pw_uid, chosen.pw_gid), paths)


def switched(numbers: tuple[int, int], paths: tuple[Path, ...]) -> Identity:
    """Return an identity of those numbers with the least capability that lets it reach all paths."""
    uid, gid = numbers
    if sys.platform != "linux" or all(open_to_all(path) for path in paths):
        return Identity(uid, gid, switch=True)
    for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE):
        if _permitted() >> capability & 1:
            return Identity(uid, gid, switch=True, capability=capability)
    closed = next(path for path in paths if not open_to_all(path))
    raise LocalServicesError(
        f"The embedded PostgreSQL does not run as root, and no other user may enter {closed}. Run Batchdesk as an"
        f" ordinary user, or from folders that everybody may enter. {OWN_SERVERS}"
    )


def open_to_all(path: Path) -> bool:
    """Tell whether every user may enter the folders down to ``path`` and read it, by their mode bits."""
    try:
        readable = path.stat().st_mode & (0o001 if path.is_dir() else 0o004)
        return bool(readable) and all(parent.stat().st_mode & 0o001 for parent in path.parents)
    except OSError:
        return False


def _recorded(data: Path) -> tuple[int, int] | None:
    if not (data / "PG_VERSION").exists():
        return None
    stat = data.stat()
    if stat.st_uid == 0:
        raise LocalServicesError(
            f"The folder {data} belongs to root, and PostgreSQL does not run as root. Give it, with all that is in"
            f" it, to a number no user has: chown -R {FREE_NUMBERS[0]}:{FREE_NUMBERS[0]}. {OWN_SERVERS}"
        )
    return stat.st_uid, stat.st_gid


def _free_number() -> tuple[int, int]:
    taken = {entry.pw_uid for entry in pwd.getpwall()}
    free = [number for number in FREE_NUMBERS if number not in taken and _exists_here(number)]
    if not free:
        raise LocalServicesError(CUT_DOWN_ROOT)
    number = random.choice(free)  # noqa: S311 - no secret
    return number, number


def _exists_here(number: int) -> bool:
    """Tell whether this user namespace has such a user and group; small ones know root only."""
    for name in ("uid_map", "gid_map"):
        try:
            lines = Path("/proc/self", name).read_text().splitlines()
        except OSError:
            return True  # no namespaces here
        ranges = [(int(first), int(count)) for first, _, count in (line.split() for line in lines)]
        if not any(first <= number < first + count for first, count in ranges):
            return False
    return True


def _check_rights() -> None:
    needed = (CAP_CHOWN, CAP_SETGID, CAP_SETUID)
    if sys.platform == "linux" and not all(_permitted() >> capability & 1 for capability in needed):
        raise LocalServicesError(CUT_DOWN_ROOT)


def _permitted() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0
