"""The record of the status files that were imported for a batch, with what a person has to look at."""

from dataclasses import dataclass
from datetime import datetime

from buffer_pipeline.database import AnyConnection, fetch
from buffer_pipeline.inputs import require_id


@dataclass(frozen=True, kw_only=True)
class PayoutStatusFile:
    """One imported file. `digest` is the SHA-256 of its bytes.

    `paid` and `returned` are how many payouts it has marked. `unknown`, `differing` and `conflicting` are the
    end-to-end ids that it has named in vain, as in `MarkedPayouts`.
    """

    payout_batch_id: int
    digest: bytes
    imported_by: str
    imported_at: datetime
    paid: int
    returned: int
    unknown: tuple[str, ...]
    differing: tuple[str, ...]
    conflicting: tuple[str, ...]


def payout_status_files(connection: AnyConnection, *, payout_batch_id: int) -> tuple[PayoutStatusFile, ...]:
    """Return the status files that were imported for a batch, the first one first."""
    rows = fetch(
        connection,
        "payouts/status_files_of_batch",
        payout_batch_id=require_id("payout batch", payout_batch_id),
    )
    lists = ("unknown", "differing", "conflicting")
    return tuple(
        PayoutStatusFile(
            **{
                **row,
                "digest": bytes.fromhex(row["digest"]),
                **{name: tuple(row[name]) for name in lists},
            }
        )
        for row in rows
    )
