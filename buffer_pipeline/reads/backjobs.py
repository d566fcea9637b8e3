"""List backjobs. Reads only."""

from dataclasses import dataclass
from datetime import datetime

from buffer_pipeline.database import AnyConnection, Row
from buffer_pipeline.hold import BackjobState
from buffer_pipeline.inputs import require_text
from buffer_pipeline.reads.choices import choice
from buffer_pipeline.reads.page import LIMIT, Listing, Page
from buffer_pipeline.reads.rows import list_rows


@dataclass(frozen=True, kw_only=True)
class BackjobRecord:
    """A backjob as it is now, with the ids of all holds that it froze, settled ones too.

    What was decided is None while it is OPEN.
    """

    backjob_id: int
    job: str
    state: BackjobState
    reference: str | None
    requested_by: str
    reason: str
    requested_at: datetime
    decided_by: str | None
    decision_reason: str | None
    decided_at: datetime | None
    hold_ids: tuple[int, ...]


def list_backjobs(
    connection: AnyConnection,
    *,
    job: str | None = None,
    state: BackjobState | str | None = None,
    oldest_first: bool = False,
    limit: int = LIMIT,
    cursor: str | None = None,
) -> Page[BackjobRecord]:
    """Return a page of the backjobs that match every given filter, in the order in which they were requested.

    Pages are as stable as those of `list_holds`.

    Raises:
        InvalidInput: as `list_holds`.
    """
    if job is not None:
        require_text("job", job)
    state = None if state is None else choice("state", state, BackjobState)
    filters: dict[str, object] = {"job": job, "state": None if state is None else str(state)}
    listing = Listing(
        name="list_backjobs", filters=filters, limit=limit, oldest_first=oldest_first, cursor=cursor
    )
    walk: tuple[str, dict[str, object]] = ("walk_backjobs", {})
    if job is not None:
        walk = ("walk_backjobs_of_job", {"job": job})
    elif state is BackjobState.OPEN:
        walk = ("walk_open_backjobs", {})
    return list_rows(
        connection,
        listing,
        walk=walk,
        rows=("backjobs", filters),
        id_name="backjob_id",
        make=_backjob_of,
        every_row_matches=job is None and state is None,
    )


def _backjob_of(row: Row) -> BackjobRecord:
    return BackjobRecord(**{**row, "state": BackjobState(row["state"]), "hold_ids": tuple(row["hold_ids"])})
