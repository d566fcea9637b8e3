"""The locks that verbs take, in one order: a reference, jobs by name, holds by id, wallets by id."""

from collections.abc import Iterable, Sequence

from buffer_pipeline.database import AnyConnection, Row, array_text, fetch
from buffer_pipeline.inputs import require_text


def lock_reference(connection: AnyConnection, reference: str) -> None:
    """Wait for any other verb with this idempotency key. What it wrote is then found by it.

    Raises:
        InvalidInput: it is no reference.
    """
    fetch(connection, "lock_reference", reference=require_text("reference", reference))


def lock_job(connection: AnyConnection, job: str) -> Row | None:
    """Lock a job and return its payer and open_backjob_id; None where there is no such job.

    Until the transaction ends no hold is added to it, and no backjob on it is requested or decided.
    """
    rows = fetch(connection, "lock_job", job=job)
    return rows[0] if rows else None


def lock_holds(
    connection: AnyConnection, *, hold_ids: Sequence[int] = (), job: str | None = None
) -> Sequence[Row]:
    """Lock what is unsettled of these holds, or of a job's, and return how all of them stand, by id.

    Each has its hold_id, job, state, currency, `amount_minor` (what it still holds), release_date,
    payee_wallet_id, payer_wallet_id and payer. A settled one never changes again, so it needs no lock.
    Waits for whoever holds a lock.
    """
    ids = list(hold_ids)
    locked = fetch(connection, "lock_holds", hold_ids=ids, job=job)
    # A statement of its own, which begins behind the locks and sees what they waited for.
    return fetch(
        connection, "read_holds", hold_ids=ids, job=job, locked_ids=[row["hold_id"] for row in locked]
    )


def lock_wallets(connection: AnyConnection, wallet_ids: Iterable[int]) -> None:
    """Lock these wallets before a statement that changes several of them. Waits for whoever holds a lock."""
    fetch(connection, "lock_wallets", wallet_ids=array_text(sorted(set(wallet_ids))))
