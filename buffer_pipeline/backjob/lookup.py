"""A backjob as a verb returns it, and how a stored one is found."""

from dataclasses import dataclass

from buffer_pipeline.database import AnyConnection, Row, fetch
from buffer_pipeline.hold import BackjobState


@dataclass(frozen=True, kw_only=True)
class Backjob:
    """A backjob after a verb: its state and the holds that it froze.

    `replayed` is True if an earlier call with the same reference did the work.
    """

    backjob_id: int
    job: str
    state: BackjobState
    hold_ids: tuple[int, ...]
    replayed: bool = False


def find_backjob(
    connection: AnyConnection,
    *,
    backjob_id: int | None = None,
    reference: str | None = None,
    decision_reference: str | None = None,
) -> Row | None:
    """Return the backjob with this id, this reference, or this reference of its decision."""
    rows = fetch(
        connection,
        "backjob/find_backjob",
        backjob_id=backjob_id,
        reference=reference,
        decision_reference=decision_reference,
    )
    return rows[0] if rows else None


def replayed_backjob(connection: AnyConnection, found: Row) -> Backjob:
    """Return a stored backjob as the answer of a repeated call."""
    holds = fetch(connection, "backjob/holds_of_backjob", backjob_id=found["backjob_id"])
    return Backjob(
        backjob_id=found["backjob_id"],
        job=found["job"],
        state=BackjobState(found["state"]),
        hold_ids=tuple(hold["hold_id"] for hold in holds),
        replayed=True,
    )
