"""What a release takes and what it returns, and the statement that releases whole holds."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from buffer_pipeline.database import AnyConnection, array_text, fetch
from buffer_pipeline.errors import BooksOutOfBalance
from buffer_pipeline.hours import hour_of
from buffer_pipeline.inputs import ID_MAX
from buffer_pipeline.recovery import Recovered, recover_from_release, total_by_currency


@dataclass(frozen=True, kw_only=True)
class ReleasePosition:
    """A position in the order of release (release hour, wallet, hold): right after this hold."""

    hour: datetime = datetime(1, 1, 2, tzinfo=UTC)
    wallet_id: int = 0
    hold_id: int = 0

    @classmethod
    def end(cls, due_by: datetime) -> "ReleasePosition":
        """Return the position after all holds that are matured at `due_by`."""
        return cls(hour=hour_of(due_by), wallet_id=ID_MAX, hold_id=ID_MAX)


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A part of the wallets: those with an id above `after` and up to `through`. By default all of them."""

    after: int = 0
    through: int = ID_MAX


@dataclass(frozen=True, kw_only=True)
class ReleaseRange:
    """The holds after one position and up to another in the order of release, of the wallets of a shard."""

    after: ReleasePosition
    through: ReleasePosition
    shard: Shard

    def parameters(self) -> dict[str, object]:
        """Return the range as parameters of a statement."""
        return {
            "after_hour": self.after.hour,
            "after_wallet_id": self.after.wallet_id,
            "after_hold_id": self.after.hold_id,
            "through_hour": self.through.hour,
            "through_wallet_id": self.through.wallet_id,
            "through_hold_id": self.through.hold_id,
            "after_shard": self.shard.after,
            "through_shard": self.shard.through,
        }


@dataclass(frozen=True, kw_only=True)
class ReleaseBatch:
    """What one release released: whole holds, and parts of holds that keep waiting.

    `amounts_minor` is all of it, currency -> minor units, and `recovered_minor` what of it paid debts of the
    payees in the same transaction. After an early release, `left_minor` is what the
    holds that were asked for still hold, also by currency. `replayed` is True if an earlier call with the
    same reference did the work; `left_minor` is then what they hold now.
    """

    holds_released: int = 0
    parts_released: int = 0
    amounts_minor: dict[str, int] = field(default_factory=dict)
    left_minor: dict[str, int] = field(default_factory=dict)
    recovered_minor: dict[str, int] = field(default_factory=dict)
    batch_id: int | None = None
    position: ReleasePosition | None = None
    replayed: bool = False


_NOWHERE: Final = ReleaseRange(after=ReleasePosition(), through=ReleasePosition(), shard=Shard())


def release_holds(
    connection: AnyConnection,
    *,
    kind: str,
    source: str,
    now: datetime,
    due_by: datetime | None = None,
    reason: str | None = None,
    reference: str | None = None,
    named_hold_id: int | None = None,
    hold_ids: Sequence[int] | None = None,
    hold_range: ReleaseRange | None = None,
) -> ReleaseBatch:
    """Release all that holds hold: those of a range, or those of ids, which the caller has locked.

    Then pay the debts of the payees from what they got, in the same transaction.

    Raises:
        BooksOutOfBalance: the credits differ from what was held; roll back.
    """
    rows = fetch(
        connection,
        "release/release_holds",
        hold_ids=None if hold_ids is None else array_text(hold_ids),
        kind=kind,
        source=source,
        reason=reason,
        reference=reference,
        named_hold_id=named_hold_id,
        due_by=due_by,
        now=now,
        **(hold_range or _NOWHERE).parameters(),
    )
    one = rows[0]
    left = (one["holds_left"], one["left_minor"])
    credited = (sum(row["holds_credited"] for row in rows), sum(row["credited_minor"] for row in rows))
    lines = (one["lines"], one["lines_minor"])
    if not left == credited == lines:
        raise BooksOutOfBalance(
            f"batch {one['batch_id']}: {left[0]} holds of {left[1]} minor units left the buffer,"
            f" {credited[0]} of {credited[1]} were credited, {lines[0]} of {lines[1]} written; roll back"
        )
    recovered: list[Recovered] = []
    if one["hold_ids_of_debtors"] is not None:
        recovered = recover_from_release(
            connection,
            hold_ids=one["hold_ids_of_debtors"],
            amounts_minor=one["amounts_of_debtors_minor"],
            batch_id=one["batch_id"],
            now=now,
        )
    return ReleaseBatch(
        holds_released=credited[0],
        amounts_minor={row["currency"]: int(row["credited_minor"]) for row in rows if row["holds_credited"]},
        recovered_minor=total_by_currency(recovered),
        batch_id=one["batch_id"],
    )
