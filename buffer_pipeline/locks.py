"""The locks of the verbs, in the one order: a reference, jobs by name, holds by id, wallets by id."""

from collections.abc import Iterable, Sequence

from buffer_pipeline.database import AnyConnection, Row, array_text, fetch
from buffer_pipeline.inputs import require_text


def lock_reference(connection: AnyConnection, reference: str) -> None:
    """Lock an idempotency key. After the lock, the caller finds what another verb wrote with that key.

    Raises:
        InvalidInput: the text cannot be a reference.
    """
    fetch(connection, "locks/lock_reference", reference=require_text("reference", reference))


def lock_job(connection: AnyConnection, job: str) -> Row | None:
    """Lock a job and return its payer and open_backjob_id; None if there is no such job.

    Until the transaction ends, nobody else adds a hold to the job, or requests or decides a backjob on it.
    """
    rows = fetch(connection, "locks/lock_job", job=job)
    return rows[0] if rows else None


def lock_holds(
    connection: AnyConnection,
    *,
    hold_ids: Sequence[int] = (),
    job: str | None = None,
    with_shares: bool = False,
) -> Sequence[Row]:
    """Lock the unsettled ones of these holds, or of a job's holds, and return all of them, by id.

    `with_shares` adds the other shares of an earning whose first share is among `hold_ids`.

    Each row has hold_id, job, state, currency, `amount_minor` (what the hold still holds), held_at,
    release_date, payee_wallet_id, payer_wallet_id, payer, kind, rule_id and `earning_id`, the first hold of
    its earning. A settled hold never changes, so it needs no lock. Waits until other transactions release
    their locks.
    """
    wanted = {"hold_ids": list(hold_ids), "job": job, "with_shares": with_shares}
    locked = fetch(connection, "locks/lock_holds", **wanted)
    # A separate statement: it begins after the locks, so it sees what their former holders committed.
    return fetch(connection, "locks/read_holds", **wanted, locked_ids=[row["hold_id"] for row in locked])


def lock_wallets(connection: AnyConnection, wallet_ids: Iterable[int]) -> None:
    """Lock wallets before a statement that changes them. Waits until others release their locks."""
    fetch(connection, "locks/lock_wallets", wallet_ids=array_text(sorted(set(wallet_ids))))
