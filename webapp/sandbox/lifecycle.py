"""Moves batches through their life as the clock says: in progress, canceling, ended, archived.

The routes look at batches through it, so that what is due has happened whenever somebody looks.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any

from .clock import timestamp
from .fates import count_fates
from .store import Batch, Store


def bring_up_to_date(store: Store, batch: Batch, now: datetime) -> Batch:
    """End the batch if it is due by `now`; the same batch if it is not, or has ended before."""
    if batch.ended_at is not None:
        return batch
    ended = _ended(batch, now)
    if ended is None:
        return batch
    if ended.processed >= 1.0:
        ended = dataclasses.replace(ended, counts=batch.planned)
    else:
        ended = dataclasses.replace(ended, counts=count_fates(ended, store.files(batch).rows()))
    store.save(ended)
    return ended


def is_due(batch: Batch, now: datetime) -> bool:
    """Whether a batch that has not ended is to end by `now`."""
    return batch.ended_at is None and _ended(batch, now) is not None


def cancel(store: Store, batch: Batch, now: datetime) -> Batch:
    """Ask for the end of a batch that has not ended; a second time changes nothing."""
    if batch.cancel_initiated_at is not None:
        return batch
    canceling = dataclasses.replace(batch, cancel_initiated_at=now)
    store.save(canceling)
    return canceling


def is_archived(batch: Batch, now: datetime) -> bool:
    return batch.ended_at is not None and batch.archives_at <= now


def present(batch: Batch, now: datetime, host_url: str) -> dict[str, Any]:
    """The batch as the API shows it.

    :param host_url: scheme and host the request came to, with a slash at the end.
    """
    archived = is_archived(batch, now)
    has_results = batch.ended_at is not None and not archived
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": _status(batch),
        "request_counts": _counts(batch, now),
        "ended_at": timestamp(batch.ended_at),
        "created_at": timestamp(batch.created_at),
        "expires_at": timestamp(batch.expires_at),
        "archived_at": timestamp(batch.archives_at) if archived else None,
        "cancel_initiated_at": timestamp(batch.cancel_initiated_at),
        "results_url": f"{host_url}v1/messages/batches/{batch.id}/results" if has_results else None,
    }


def _ended(batch: Batch, now: datetime) -> Batch | None:
    """The batch as it ends by whichever comes first of done, expired and cancelled; None if none is due."""
    end, ending, processed = batch.ends_at, "done", 1.0
    if batch.cancel_initiated_at is not None:
        # What is cancelled ends as cancelled, though it would have been done while the cancel took effect.
        ending, processed = "canceled", 1.0 - batch.config.canceled_share
    elif batch.expires_at < batch.due_at:
        ending, processed = "expired", 86_400 / batch.config.delay
    if end > now:
        return None
    return dataclasses.replace(batch, ended_at=end, ending=ending, processed=processed)


def _status(batch: Batch) -> str:
    if batch.ended_at is not None:
        return "ended"
    return "canceling" if batch.cancel_initiated_at is not None else "in_progress"


def _counts(batch: Batch, now: datetime) -> dict[str, int]:
    none = dict.fromkeys(("succeeded", "errored", "canceled", "expired"), 0)
    if batch.ended_at is not None:
        return {"processing": 0} | none | batch.counts
    counts = none
    if batch.config.live_counts and batch.config.delay > 0:
        part = min(1.0, (now - batch.created_at).total_seconds() / batch.config.delay)
        counts = none | {name: int(count * part) for name, count in batch.planned.items()}
    return {"processing": batch.total - sum(counts.values())} | counts
