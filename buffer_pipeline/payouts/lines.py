"""The lines of a batch for a bank's file."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import AnyConnection, fetch
from buffer_pipeline.errors import NotFound, PayoutRefused
from buffer_pipeline.inputs import require_id
from buffer_pipeline.money import format_amount
from buffer_pipeline.payouts.bank_ids import bank_ids
from buffer_pipeline.payouts.destination import PayoutMethod
from buffer_pipeline.payouts.state import PayoutBatchState

_LINES_PER_PAGE: Final = 5_000


@dataclass(frozen=True, kw_only=True)
class PayoutLine:
    """A line of a batch. `account` is not masked. Neither it nor the holder's name is in the line's repr."""

    payout_id: int
    end_to_end_id: str
    owner: str
    method: PayoutMethod
    account: str = field(repr=False)
    holder_name: str | None = field(repr=False, default=None)
    amount: Decimal
    currency: str


def payout_lines(connection: AnyConnection, *, payout_batch_id: int) -> Iterator[PayoutLine]:
    """Yield the lines of a SENT batch by id, the same ones each time, whatever became of them since.

    A batch that is not sent yet has none: a payout of it can still be cancelled, and would be paid twice.
    Reads page by page, so memory does not grow with the batch. Needs the role `buffer_payouts`.

    Raises:
        NotFound: no such batch.
        PayoutRefused: it is not SENT.
    """
    found = fetch(
        connection, "payouts/find_batch", payout_batch_id=require_id("payout batch", payout_batch_id)
    )
    if not found:
        raise NotFound(f"payout batch {payout_batch_id}: does not exist", payout_batch_id=payout_batch_id)
    if found[0]["state"] != PayoutBatchState.SENT:
        raise PayoutRefused(
            f"payout batch {payout_batch_id}: is {found[0]['state']}; only a SENT one has lines for a file",
            payout_batch_id=payout_batch_id,
            state=found[0]["state"],
            allowed=(PayoutBatchState.SENT,),
        )
    return _pages(connection, payout_batch_id)


def _pages(connection: AnyConnection, payout_batch_id: int) -> Iterator[PayoutLine]:
    places, ids = places_of(connection), bank_ids(connection)
    after_id = 0
    while rows := fetch(
        connection,
        "payouts/lines_of_batch",
        payout_batch_id=payout_batch_id,
        after_id=after_id,
        line_limit=_LINES_PER_PAGE,
    ):
        for row in rows:
            yield PayoutLine(
                payout_id=row["payout_id"],
                end_to_end_id=ids.of_payout(row["payout_id"]),
                owner=row["owner"],
                method=PayoutMethod(row["method"]),
                account=row["account"],
                holder_name=row["holder_name"],
                amount=Decimal(format_amount(row["amount_minor"], places[row["currency"]])),
                currency=row["currency"],
            )
        after_id = rows[-1]["payout_id"]
