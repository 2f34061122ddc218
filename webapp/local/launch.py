"""Turns itself into one child program that dies with its owner, under another uid if asked.

Only the supervisor starts it, as a script in a bare interpreter (`-I -S`): it imports nothing but the standard
library and replaces itself by the program.

Linux only does the special parts. The order matters: a change of credentials clears the parent death signal, so
that one is asked for last; and the owner may have died before it was asked for, so the parent is looked at after.
"""

from __future__ import annotations

import ctypes
import os
import sys

# From linux/prctl.h and linux/capability.h.
PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAPABILITY_VERSION_3 = 0x20080522

CANNOT_EXECUTE = 126


class CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class CapData(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def prctl(*arguments: int) -> None:
    """Call prctl(2) with up to five numbers; raises OSError."""
    padded = [ctypes.c_ulong(number) for number in (*arguments, 0, 0, 0, 0)[:5]]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(*padded) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({arguments[0]}): {os.strerror(ctypes.get_errno())}")


def become(uid: int, gid: int, capability: int | None) -> None:
    """Change to ``uid`` and ``gid`` for good, keeping at most one capability across the coming exec."""
    if capability is not None:
        prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setgid(gid)  # from root these set the real, effective and saved numbers at once
    os.setuid(uid)
    if capability is not None:
        keep_only(capability)
    if sys.platform == "linux":
        prctl(PR_SET_NO_NEW_PRIVS, 1)


def keep_only(capability: int) -> None:
    """Drop every capability but one, and make that one survive exec (ambient)."""
    bits = 1 << capability  # both that are ever asked for are below 32
    data = (CapData * 2)(CapData(bits, bits, bits), CapData(0, 0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(ctypes.byref(CapHeader(CAPABILITY_VERSION_3, 0)), data) != 0:
        raise OSError(ctypes.get_errno(), f"capset: {os.strerror(ctypes.get_errno())}")
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)


def main(arguments: list[str]) -> None:
    """``PARENT DEATH_SIGNAL UID|- GID|- CAPABILITY|- PROGRAM ARGUMENT…``."""
    parent, death_signal = int(arguments[0]), int(arguments[1])
    uid, gid, capability = (None if word == "-" else int(word) for word in arguments[2:5])
    program = arguments[5:]
    try:
        if uid is not None and gid is not None:
            become(uid, gid, capability)
        if sys.platform == "linux":
            prctl(PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent:
            sys.exit(0)
        os.execv(program[0], program)  # noqa: S606 - the whole purpose: no shell, a list we were given
    except OSError as error:
        print(f"cannot start {program[0]}: {error}", file=sys.stderr)  # noqa: T201 - goes to the child's log
        sys.exit(CANNOT_EXECUTE)


if __name__ == "__main__":
    main(sys.argv[1:])
