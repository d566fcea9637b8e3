"""The lock that every verb takes on the holds that it is about, in the one order there is: by id."""

from collections.abc import Sequence

from buffer_pipeline.database import AnyConnection, Row, fetch


def lock_holds(
    connection: AnyConnection, *, hold_ids: Sequence[int] = (), job: str | None = None
) -> Sequence[Row]:
    """Lock what is unsettled of these holds, or of a job's, and return how all of them stand, by id.

    Each has its hold_id, job, state, currency, `amount_minor` (what it still holds), release_date and
    payer. A settled one never changes again, so it needs no lock. Waits for whoever holds a lock.
    """
    ids = list(hold_ids)
    locked = fetch(connection, "lock_holds", hold_ids=ids, job=job)
    # A statement of its own, which begins behind the locks and sees what they waited for.
    return fetch(
        connection, "read_holds", hold_ids=ids, job=job, locked_ids=[row["hold_id"] for row in locked]
    )
