"""Which subjects a run is over: all that one revision of its dataset holds, or those of a selection made for it.
Both are frozen when the run is made. Planning, exports and rebuilding read them by what stands here.
"""

from __future__ import annotations

from sqlalchemy import Integer
from sqlalchemy.orm import Mapped, mapped_column

from webapp.db import Base


class Selection(Base):
    """One subject of a run over some subjects of its dataset, at its place there."""

    __tablename__ = "selections"

    run_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    subject_id: Mapped[int]


# Of subjects s: revision `:revision` of their dataset holds them.
IN_REVISION = "s.added_in <= :revision AND (s.gone_in IS NULL OR s.gone_in > :revision)"
# Of subjects s and runs run: the run is over them. For reading all of a run at once.
OF_RUN = """(
    s.dataset_id = run.dataset_id AND CASE WHEN run.selected OR run.parent_run_id IS NOT NULL
    THEN EXISTS (SELECT 1 FROM selections l WHERE l.run_id = run.id AND l.position = s.position)
    ELSE s.added_in <= run.revision AND (s.gone_in IS NULL OR s.gone_in > run.revision) END
)"""
# The same of runs r, as a column. A run that rebuilds is one, also where it was made before there was the mark.
SELECTED = "(r.selected OR r.parent_run_id IS NOT NULL)"


def after(*, selected: bool) -> tuple[str, str]:
    """The subjects s of a run after a position: (FROM and WHERE, the column of the position), for reading by key.

    Binds `:after`, and `:run`, or `:dataset` and `:revision`.
    """
    if selected:
        return (
            "FROM selections l JOIN subjects s ON s.id = l.subject_id WHERE l.run_id = :run AND l.position > :after",
            "l.position",
        )
    return f"FROM subjects s WHERE s.dataset_id = :dataset AND s.position > :after AND {IN_REVISION}", "s.position"
