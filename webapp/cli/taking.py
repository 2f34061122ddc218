"""Takes records from a plugin's source, or the outputs of a run, as a dataset, and starts a run over them: once,
however often it is asked to. `batchdesk run` calls it. The workers do the import: the source's secrets are theirs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from webapp import db, wishes
from webapp.batches.naming import new_token
from webapp.batches.states import UploadState
from webapp.cli.app import tell
from webapp.cli.starting import OWNER, SKIP_HINT
from webapp.cli.waiting import LOOK_SECONDS, QUIET_SECONDS, UNMANNED_SECONDS, nobody_works, patiently
from webapp.datasets import uploads
from webapp.errors import InputError
from webapp.records.reading import SHOWN_PROBLEMS, Problem, problems_report
from webapp.runs.staleness import Over
from webapp.runs.verbs import PLAIN, Manner


@dataclass(frozen=True, slots=True)
class Taking:
    """A run that somebody wants over what a source or another run gives.

    :param origin: the name of a source, or the id of a run.
    :param manner: how careful the run is to be.
    :param to: the names of the destinations that its outputs go to.
    :param tokens: of the import and of the run.
    """

    task: str
    settings: Mapping[str, Any]
    origin: str | int
    origin_settings: Mapping[str, Any]
    skip_bad: bool
    manner: Manner = PLAIN
    to: tuple[str, ...] = ()
    tokens: tuple[str, str] = field(default_factory=lambda: (new_token(), new_token()))


def take(wanted: Taking, *, until: float | None) -> int | None:
    """Import and start the run; its id, or None when the time is over before. May be repeated: it is done once.

    :raises InputError: what is given cannot be used; nothing was started.
    """
    upload = _imported(patiently(lambda: _ask(wanted)), until)
    if upload is None:
        return None
    if upload.problems:
        tell(_report(upload))
        tell("They are left out; the rest goes on.")
    run_id = patiently(
        lambda: wishes.ask_start(
            upload.dataset_id,
            wanted.task,
            wanted.settings,
            over=Over.ALL,
            actor=OWNER,
            token=wanted.tokens[1],
            manner=wanted.manner,
            to=wanted.to,
        )
    )
    tell(f"Run {run_id} of {wanted.task} started over dataset {upload.dataset_id}.")
    return run_id


def _ask(wanted: Taking) -> int:
    if isinstance(wanted.origin, int):
        return wishes.ask_outputs(wanted.origin, actor=OWNER, token=wanted.tokens[0])
    return wishes.ask_source(
        wanted.origin,
        wanted.origin_settings,
        dataset_name=wanted.origin,
        skip_bad=wanted.skip_bad,
        actor=OWNER,
        token=wanted.tokens[0],
    )


def _imported(upload_id: int, until: float | None) -> Any:
    """The import's row once it is done; None when the time is over before."""
    told = began = time.monotonic()
    manned = False
    while True:
        upload = patiently(lambda: _row(upload_id), deadline=until)
        if upload.state != UploadState.IMPORTING:
            break
        now = time.monotonic()
        if until is not None and now >= until:
            tell(f"Stopped waiting: the time is over. Import {upload_id} goes on and makes its dataset; no run starts.")
            return None
        if not manned and now - began >= UNMANNED_SECONDS:
            manned = True
            if unmanned := patiently(nobody_works, deadline=until):
                tell(unmanned)
        if now - told >= QUIET_SECONDS:
            told = now
            tell(f"{upload.records:,} records are stored so far." if upload.records else "The records come in.")
        time.sleep(LOOK_SECONDS)
    if upload.state == UploadState.IMPORTED:
        return upload
    words = _report(upload) if upload.problems else str(upload.reason)
    if upload.state == UploadState.REFUSED:
        patiently(lambda: wishes.ask_discard_upload(upload_id, actor=OWNER))
    raise InputError(f"{words}\n{SKIP_HINT}" if upload.problems else words)


def _row(upload_id: int) -> Any:
    with db.transaction() as tx:
        return db.row(
            tx,
            "SELECT u.*, coalesce(p.records, 0) AS records FROM uploads u "
            "LEFT JOIN upload_progress p ON p.upload_id = u.id WHERE u.id = :id",
            id=upload_id,
        )


def _report(upload: Any) -> str:
    with db.transaction() as tx:
        first = uploads.problems(tx, upload.id)[:SHOWN_PROBLEMS]
    found = [Problem(one.place, one.fault, one.remedy, bytes(one.raw)) for one in first]
    return problems_report(found, upload.problems)
