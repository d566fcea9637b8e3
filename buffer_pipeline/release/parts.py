"""Release a part of a hold early; of an earning with shares, a part of each share."""

from collections.abc import Sequence
from datetime import datetime

from buffer_pipeline.database import AnyConnection, Row, fetch
from buffer_pipeline.errors import BooksOutOfBalance
from buffer_pipeline.money import split_in_proportion
from buffer_pipeline.recovery import Recovered, recover_from_release, total_by_currency
from buffer_pipeline.release.batch import ReleaseBatch


def release_parts(
    connection: AnyConnection,
    holds: Sequence[Row],
    amount_minor: int,
    *,
    source: str,
    reason: str,
    now: datetime,
    reference: str | None,
    named_hold_id: int | None,
) -> tuple[ReleaseBatch, dict[int, int]]:
    """Release `amount_minor` of the holds in proportion to what they hold, which is more than that.

    The caller has locked the holds, which are of one currency, and then their wallets. A small share may give
    all that it holds, and is then released. Returns the batch, and what each hold gave.

    Raises:
        BooksOutOfBalance: what left the buffer, the credits and the transactions differ; roll back.
    """
    parts = split_in_proportion(amount_minor, [hold["amount_minor"] for hold in holds])
    given = {hold["hold_id"]: part for hold, part in zip(holds, parts, strict=True) if part}
    rows = fetch(
        connection,
        "release/release_parts",
        hold_ids=list(given),
        parts_minor=list(given.values()),
        source=source,
        reason=reason,
        reference=reference,
        named_hold_id=named_hold_id,
        left_minor=sum(hold["amount_minor"] for hold in holds) - amount_minor,
        now=now,
    )
    one = rows[0]
    asked = (len(given), amount_minor)
    taken = (one["holds_taken"], one["taken_minor"])
    credited = (one["holds_credited"], one["credited_minor"])
    lines = (one["lines"], one["lines_minor"])
    if not asked == taken == credited == lines:
        raise BooksOutOfBalance(
            f"hold {named_hold_id}: of {len(given)} holds {amount_minor} minor units were to be released;"
            f" {taken[0]} gave {taken[1]}, {credited[0]} of {credited[1]} were credited,"
            f" {lines[0]} of {lines[1]} written; roll back"
        )
    recovered: list[Recovered] = []
    if one["has_debtors"]:
        recovered = recover_from_release(
            connection,
            hold_ids=list(given),
            amounts_minor=list(given.values()),
            batch_id=one["batch_id"],
            now=now,
        )
    batch = ReleaseBatch(
        holds_released=one["holds_released"],
        parts_released=len(given) - one["holds_released"],
        amounts_minor={holds[0]["currency"]: amount_minor},
        recovered_minor=total_by_currency(recovered),
        batch_id=one["batch_id"],
    )
    return batch, given
