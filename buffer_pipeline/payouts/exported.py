"""The record of the files that were written for a batch: a bank must get only one of them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from buffer_pipeline.database import AnyConnection, fetch
from buffer_pipeline.errors import InvalidInput, NotFound, PayoutRefused
from buffer_pipeline.inputs import require_id, require_text, require_time
from buffer_pipeline.payouts.state import PayoutBatchState, PayoutState

_DIGEST_LENGTH: Final = 32
_FORMAT_LENGTH_MAX: Final = 100


@dataclass(frozen=True, kw_only=True)
class PayoutExported:
    """One file of a batch. `number` is 1 for the first. `digest` is the SHA-256 of its bytes."""

    payout_batch_id: int
    number: int
    format: str
    digest: bytes
    exported_by: str
    exported_at: datetime


def record_payout_export(
    connection: AnyConnection,
    *,
    payout_batch_id: int,
    format_name: str,
    file_digest: bytes,
    by: str,
    now: datetime,
) -> tuple[PayoutExported, ...]:
    """Note that a file of a SENT batch was written, before anybody gets it.

    Each call adds one. The answer has all of them, the first one first. If there is more than one, tell the
    person: the bank must get only one of them.

    Raises:
        InvalidInput: a digest that is not 32 bytes.
        NotFound: no such batch.
        PayoutRefused: it is not SENT, or some of its payouts came back: a file would pay them again.
    """
    require_time("now", now)
    require_id("payout batch", payout_batch_id)
    require_text("format_name", format_name, length_max=_FORMAT_LENGTH_MAX)
    require_text("by", by)
    if not isinstance(file_digest, bytes) or len(file_digest) != _DIGEST_LENGTH:
        raise InvalidInput("file_digest: not the 32 bytes of a SHA-256")
    # One export at a time, so that one of two is the second.
    batch = fetch(connection, "payouts/lock_batch", payout_batch_id=payout_batch_id)
    if not batch:
        raise NotFound(f"payout batch {payout_batch_id}: does not exist", payout_batch_id=payout_batch_id)
    if batch[0]["state"] != PayoutBatchState.SENT:
        raise PayoutRefused(
            f"payout batch {payout_batch_id}: is {batch[0]['state']}; only a SENT one is exported",
            payout_batch_id=payout_batch_id,
            state=batch[0]["state"],
            allowed=(PayoutBatchState.SENT,),
        )
    _require_none_came_back(connection, payout_batch_id)
    fetch(
        connection,
        "payouts/add_export",
        payout_batch_id=payout_batch_id,
        format_name=format_name,
        digest=file_digest.hex(),
        exported_by=by,
        now=now,
    )
    return payout_exports(connection, payout_batch_id=payout_batch_id)


def _require_none_came_back(connection: AnyConnection, payout_batch_id: int) -> None:
    # Who imports a status file has locked the batch too.
    found = fetch(connection, "payouts/returned_in_batch", payout_batch_id=payout_batch_id)
    if found[0]["payouts"]:
        raise PayoutRefused(
            f"payout batch {payout_batch_id}: {found[0]['payouts']} of its payouts came back, and their money"
            " is in the balances again; a file would pay them again. Request new payouts instead",
            payout_batch_id=payout_batch_id,
            state=PayoutState.RETURNED,
        )


def payout_exports(connection: AnyConnection, *, payout_batch_id: int) -> tuple[PayoutExported, ...]:
    """Return the files that were written for a batch, the first one first."""
    rows = fetch(
        connection, "payouts/exports_of_batch", payout_batch_id=require_id("payout batch", payout_batch_id)
    )
    return tuple(PayoutExported(**{**row, "digest": bytes.fromhex(row["digest"])}) for row in rows)
