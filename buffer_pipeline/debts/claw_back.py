"""Take back what was released, for the payer or for a bank. What the balance does not cover is a debt."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import AnyConnection, Row, array_text, fetch, wallet_capacity_or_refusal
from buffer_pipeline.debts.replay import require_same
from buffer_pipeline.debts.split import ClawbackTo, held_texts, split_claw_back
from buffer_pipeline.errors import (
    BooksOutOfBalance,
    InsufficientFunds,
    InvalidInput,
    NotFound,
    StateRefused,
)
from buffer_pipeline.hold import HoldState
from buffer_pipeline.hours import enter_hour
from buffer_pipeline.inputs import (
    require_id,
    require_not_before,
    require_reason,
    require_text,
    require_time,
)
from buffer_pipeline.locks import lock_reference, lock_wallets
from buffer_pipeline.money import format_amount, parse_amount


@dataclass(frozen=True, kw_only=True)
class Clawback:
    """What was taken back of a hold, or of all shares of an earning.

    `taken_minor` left balances at once; `debt_minor` is what the payees owe, in the debts `debt_ids`.
    `replayed` is True if an earlier call with the same reference did the work.
    """

    clawback_id: int
    hold_id: int
    currency: str
    amount_minor: int
    taken_minor: int
    debt_minor: int
    debt_ids: tuple[int, ...] = ()
    replayed: bool = False


def claw_back(
    connection: AnyConnection,
    *,
    amount: Decimal | int | str,
    to: ClawbackTo,
    by: str,
    reason: str,
    reference: str,
    now: datetime,
    hold_id: int | None = None,
    earning_reference: str | None = None,
    advanced_by: str | None = None,
) -> Clawback:
    """Take back a part or all of what a hold has released, parts of it included.

    The hold is named by `hold_id`, or by the reference of its earning. By the id of an earning's own hold, or
    by its reference, all shares give in proportion to what each has released and not given back before
    (largest remainder). A FEE share whose rule keeps the fee on a refund gives nothing to the payer, and to a
    bank only what the others do not cover. By the id of another share, only that share gives. What is still
    held gives nothing: the refusal of a larger amount says so.

    What the balance of a share's owner covers moves at once. The rest is a debt of that owner, which later
    releases to them pay first. Whom they owe:

    - `to=PAYER`: the payer, who gets it as it is recovered.
    - `to=BANK`: nobody's wallet. The bank has taken the whole amount, so all of it leaves the books now, and
      what was not covered is on the account RECEIVABLE until it is recovered.
    - With `advanced_by`: that owner, whose balance pays the payer or the bank now.

    Only an admin should do this; the platform checks who may. The payees and the payer are notified.
    `reference` is the idempotency key.

    Raises:
        InvalidInput: both or neither of `hold_id` and `earning_reference` are given, `advanced_by` is the
            payee or the payer, `now` is more than a minute before the last release, or a value cannot be
            accepted.
        NotFound: no such hold or earning, or `advanced_by` has no wallet in the currency.
        StateRefused: nothing was released yet.
        RuleRefused: it is a kept fee, and `to` is PAYER.
        InsufficientFunds: `amount` is above what is left to take back, or the balance of `advanced_by` does
            not cover what it would advance.
        WalletFull: the payer's wallet cannot hold so much.
        BooksOutOfBalance: it was not written as asked; roll back.
        ReferenceConflict: the reference was used for something else.
    """
    require_time("now", now)
    require_text("by", by)
    require_reason(reason)
    to = _require_to(to)
    _require_named(hold_id, earning_reference)
    if advanced_by is not None:
        require_text("advanced_by", advanced_by)
    enter_hour(connection, now=now)
    lock_reference(connection, reference)
    holds = _holds_of(connection, hold_id=hold_id, earning_reference=earning_reference)
    named_id, currency = holds[0]["hold_id"], holds[0]["currency"]
    amount_minor = parse_amount(amount, currency, places_of(connection)[currency])
    found = fetch(connection, "debts/find_claw_back", reference=reference)
    if found:
        content = (named_id, by, reason, to, amount_minor, advanced_by)
        return _replay(connection, found[0], content=content)
    advancer_id = _advancer(connection, holds[0], owner=advanced_by)
    wallets = {hold[side] for hold in holds for side in ("payee_wallet_id", "payer_wallet_id")}
    lock_wallets(connection, wallets if advancer_id is None else wallets | {advancer_id})
    # A claw-back and a release both lock the payee's wallet, so from here on none of this changes.
    earned = {
        row["hold_id"]: row
        for row in fetch(connection, "debts/read_earned", hold_ids=[hold["hold_id"] for hold in holds])
    }
    now = _require_released(connection, holds, earned, now=now, to=to)
    taken = split_claw_back(
        connection,
        holds,
        {each: _left(row) for each, row in earned.items()},
        amount_minor=amount_minor,
        to=to,
    )
    with wallet_capacity_or_refusal(connection, f"hold {named_id}: its payer's wallet", hold_id=named_id):
        row = fetch(
            connection,
            "debts/claw_back",
            named_id=named_id,
            hold_ids=array_text(list(taken)),
            amounts_minor=array_text(list(taken.values())),
            paid_to=to,
            advancer_wallet_id=advancer_id,
            taken_by=by,
            reason=reason,
            reference=reference,
            now=now,
        )[0]
    if not row["is_covered"]:
        places = places_of(connection)[currency]
        raise InsufficientFunds(
            f"wallet of {advanced_by!r}: cannot advance {format_amount(row['advance_minor'], places)}"
            f" {currency} for hold {named_id}; its balance does not cover that",
            hold_id=named_id,
            owner=advanced_by,
        )
    if row["batch_id"] is None or row["taken_minor"] + row["debt_minor"] != amount_minor:
        raise BooksOutOfBalance(
            f"hold {named_id}: of {amount_minor} minor units {row['taken_minor']} were taken back and"
            f" {row['debt_minor']} are owed; roll back"
        )
    return Clawback(
        clawback_id=row["batch_id"],
        hold_id=named_id,
        currency=currency,
        amount_minor=amount_minor,
        taken_minor=row["taken_minor"],
        debt_minor=row["debt_minor"],
        debt_ids=tuple(row["debt_ids"]),
    )


def _require_to(to: ClawbackTo) -> ClawbackTo:
    try:
        return ClawbackTo(to)
    except ValueError:
        raise InvalidInput(f"to {str(to)[:60]!r}: is not {' or '.join(ClawbackTo)}") from None


def _require_named(hold_id: int | None, earning_reference: str | None) -> None:
    if (hold_id is None) == (earning_reference is None):
        raise InvalidInput("claw back: needs a hold or the reference of an earning, one of them")
    if hold_id is not None:
        require_id("hold", hold_id)
    else:
        require_text("earning_reference", earning_reference or "")


def _holds_of(
    connection: AnyConnection, *, hold_id: int | None, earning_reference: str | None
) -> Sequence[Row]:
    """Return the named hold first, and if it is the first share of an earning, the others after it."""
    holds = fetch(connection, "debts/find_earning", hold_id=hold_id, reference=earning_reference)
    if not holds:
        raise NotFound(
            f"earning {earning_reference!r}: does not exist"
            if hold_id is None
            else f"hold {hold_id}: does not exist",
            hold_id=hold_id,
            reference=earning_reference,
        )
    return holds


def _advancer(connection: AnyConnection, named: Row, *, owner: str | None) -> int | None:
    if owner is None:
        return None
    rows = fetch(connection, "debts/find_wallet", owner=owner, currency=named["currency"])
    if not rows:
        raise NotFound(f"wallet of {owner!r} in {named['currency']}: does not exist", owner=owner)
    wallet_id: int = rows[0]["wallet_id"]
    for side in ("payee", "payer"):
        if wallet_id == named[f"{side}_wallet_id"]:
            raise InvalidInput(
                f"advanced_by {owner!r}: is the {side} of hold {named['hold_id']}; others can advance it",
                hold_id=named["hold_id"],
                owner=owner,
            )
    return wallet_id


def _left(earned: Row) -> int:
    left: int = earned["earned_minor"] - earned["clawed_back_minor"]
    return left


def _require_released(
    connection: AnyConnection,
    holds: Sequence[Row],
    earned: dict[int, Row],
    *,
    now: datetime,
    to: ClawbackTo,
) -> datetime:
    """Return the time of the claw-back: `now`, or that of the last release if `now` is slightly before it."""
    named = holds[0]
    times = [row["earned_at"] for row in earned.values() if row["earned_at"] is not None]
    if not times:
        # A settled hold that has earned nothing was refunded.
        raise StateRefused(
            hold_id=named["hold_id"], state=named["state"], verb="take back", allowed=(HoldState.RELEASED,)
        )
    if not any(_left(row) for row in earned.values()):
        currency = named["currency"]
        places = places_of(connection)[currency]
        taken = format_amount(sum(row["clawed_back_minor"] for row in earned.values()), places)
        raise InsufficientFunds(
            f"hold {named['hold_id']}: nothing is left to take back; {taken} {currency} were taken before"
            + held_texts(connection, holds, to=to),
            hold_id=named["hold_id"],
        )
    return require_not_before(now, max(times), what=f"hold {named['hold_id']} was released")


def _replay(
    connection: AnyConnection,
    found: Row,
    *,
    content: tuple[int, str, str, ClawbackTo, int, str | None],
) -> Clawback:
    same = (
        found["named_hold_id"],
        found["source"],
        found["reason"],
        found["paid_to"],
        found["amount_minor"],
        found["advanced_by"],
    ) == content
    require_same(connection, found, kind="CLAWBACK", same=same)
    return Clawback(
        clawback_id=found["batch_id"],
        hold_id=found["named_hold_id"],
        currency=found["currency"],
        amount_minor=found["amount_minor"],
        taken_minor=found["amount_minor"] - found["debt_minor"],
        debt_minor=found["debt_minor"],
        debt_ids=tuple(found["debt_ids"]),
        replayed=True,
    )
