"""The random part of custom_ids, and the place where it was drawn: a copy of the database sends other ids.
Sharding draws when a batch is cut, submission draws anew before a POST; nothing else makes an id.

Rule 4 says that ids are unique across restored backups. Two copies of a database hold the same requests, so each must
know that it is not the one that drew their ids. Whatever may be a copy differs in its *place*: the database's own
number, and when its server was started. A server that was merely started again differs too, and does no harm: what it
has not sent yet gets other ids.
"""

from __future__ import annotations

import base64
import secrets

from sqlalchemy import Connection

from webapp import db

TOKEN_BYTES = 10  # 80 bits: unique across installations and restored backups
TOKEN_LENGTH = 16  # characters, in base32

# A scalar for statements: this database, on this start of its server.
PLACE = (
    "(SELECT oid || '@' || extract(epoch FROM pg_postmaster_start_time()) FROM pg_database "
    "WHERE datname = current_database())"
)


def new_token() -> str:
    """80 random bits, as they stand in custom_ids."""
    return base64.b32encode(secrets.token_bytes(TOKEN_BYTES)).decode().lower()


def draw_again(tx: Connection, batch_id: int) -> bool:
    """Give the requests of a batch ids of their own, unless theirs were drawn here; whether it was done.

    Before each POST, in the transaction of its intent: nothing of the batch may be on its way.
    """
    copied = db.scalar(tx, f"SELECT place IS DISTINCT FROM {PLACE} FROM batches WHERE id = :id", id=batch_id)  # noqa: S608
    if not copied:
        return False
    db.run(
        tx,
        "UPDATE requests r SET custom_id = i.subject_id || '-' || :token || '-' || r.attempt "
        "FROM items i WHERE i.id = r.item_id AND r.batch_id = :id",
        token=new_token(),
        id=batch_id,
    )
    db.run(tx, f"UPDATE batches SET place = {PLACE} WHERE id = :id", id=batch_id)  # noqa: S608
    return True
