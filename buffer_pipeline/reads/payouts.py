"""List payouts. Reads only; no account, only what is shown of it."""

from dataclasses import dataclass
from datetime import datetime

from buffer_pipeline.database import AnyConnection, Row
from buffer_pipeline.inputs import require_id, require_text
from buffer_pipeline.payouts.state import PayoutState
from buffer_pipeline.reads.choices import choice
from buffer_pipeline.reads.page import LIMIT, Listing, Page
from buffer_pipeline.reads.rows import list_rows


@dataclass(frozen=True, kw_only=True)
class PayoutRecord:
    """A payout as it is now. `amount_minor` is in minor units, of so many decimal `places`.

    `account` is masked, and None until the payout is in a batch. `override_reason` is why an admin let it
    pass a freeze, a debt or the wait of a new destination.
    """

    payout_id: int
    owner: str
    currency: str
    places: int
    amount_minor: int
    state: PayoutState
    reference: str
    requested_by: str
    requested_at: datetime
    override_reason: str | None
    payout_batch_id: int | None
    account: str | None
    sent_at: datetime | None
    paid_at: datetime | None
    returned_at: datetime | None
    return_reason: str | None
    cancelled_by: str | None
    cancellation_reason: str | None
    cancelled_at: datetime | None


def list_payouts(
    connection: AnyConnection,
    *,
    owner: str | None = None,
    state: PayoutState | str | None = None,
    payout_batch_id: int | None = None,
    oldest_first: bool = False,
    limit: int = LIMIT,
    cursor: str | None = None,
) -> Page[PayoutRecord]:
    """Return a page of the payouts that match every given filter, in the order in which they were requested.

    Pages are as stable as those of `list_holds`.

    Raises:
        InvalidInput: as `list_holds`.
        NotFound: no batch could have this id.
    """
    if owner is not None:
        require_text("owner", owner)
    if payout_batch_id is not None:
        require_id("payout batch", payout_batch_id)
    state = None if state is None else choice("state", state, PayoutState)
    filters: dict[str, object] = {
        "owner": owner,
        "state": None if state is None else str(state),
        "payout_batch_id": payout_batch_id,
    }
    listing = Listing(
        name="list_payouts", filters=filters, limit=limit, oldest_first=oldest_first, cursor=cursor
    )
    walk: tuple[str, dict[str, object]] = ("walk_payouts", {})
    if payout_batch_id is not None:
        walk = ("walk_payouts_of_batch", {"payout_batch_id": payout_batch_id})
    elif owner is not None:
        walk = ("walk_payouts_of_owner", {"owner": owner})
    elif state is PayoutState.REQUESTED:
        walk = ("walk_requested_payouts", {})
    elif state is PayoutState.SENT:
        walk = ("walk_sent_payouts", {})
    return list_rows(
        connection,
        listing,
        walk=walk,
        rows=("payouts", filters),
        id_name="payout_id",
        make=_payout_of,
        every_row_matches=all(value is None for value in filters.values()),
    )


def _payout_of(row: Row) -> PayoutRecord:
    return PayoutRecord(**{**row, "state": PayoutState(row["state"])})
