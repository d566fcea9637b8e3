"""Request a payout: its money leaves the balance at once, and is in transit until it is paid."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import AnyConnection, Row, fetch
from buffer_pipeline.errors import (
    BooksOutOfBalance,
    InsufficientFunds,
    InvalidInput,
    NotFound,
    PayoutRefused,
    ReferenceConflict,
)
from buffer_pipeline.hours import enter_hour
from buffer_pipeline.inputs import require_reason, require_text, require_time
from buffer_pipeline.locks import lock_reference
from buffer_pipeline.money import format_amount, parse_amount
from buffer_pipeline.payouts.state import PayoutState
from buffer_pipeline.policy import PayoutPolicy


@dataclass(frozen=True, kw_only=True)
class Payout:
    """A payout. `state` is its state now.

    `replayed` is True if an earlier call with the same content did the work.
    """

    payout_id: int
    owner: str
    currency: str
    amount_minor: int
    state: PayoutState
    replayed: bool = False


def request_payout(
    connection: AnyConnection,
    *,
    owner: str,
    currency: str,
    by: str,
    reference: str,
    now: datetime,
    amount: Decimal | int | str | None = None,
    everything: bool = False,
    override: bool = False,
    reason: str | None = None,
    policy: PayoutPolicy | None = None,
) -> Payout:
    """Take `amount`, or with `everything` the whole balance, out of the owner's balance for a payout.

    `reference` is the idempotency key; those of payouts are a name space of their own. With `override` an
    admin lets it pass although the owner is frozen or owes a debt, or their destination is new, and says why
    in `reason`.
    The platform checks who may. The balance and the minimum always count.

    Raises:
        InvalidInput: neither or both of `amount` and `everything`, an override without a reason, or a reason
            without an override.
        NotFound: the owner has no wallet in this currency.
        PayoutRefused: the owner is frozen, owes a debt or has no destination, or the payout is below the
            currency's minimum.
        InsufficientFunds: more than the balance; pending earnings do not count.
        ReferenceConflict: the reference was used for another payout.
        BooksOutOfBalance: the payout was not written as asked; roll back.
    """
    require_time("now", now)
    require_text("owner", owner)
    require_text("by", by)
    if (amount is None) != everything:
        raise InvalidInput(f"payout of {owner!r}: needs an amount, or everything, and not both", owner=owner)
    if override != (reason is not None):
        raise InvalidInput(
            f"payout of {owner!r}: an override needs a reason, and nothing else has one", owner=owner
        )
    if reason is not None:
        require_reason(reason)
    policy = policy or PayoutPolicy()
    places = places_of(connection)
    if currency not in places:
        raise _no_wallet(owner, currency)
    amount_minor = None if amount is None else parse_amount(amount, currency, places[currency])
    enter_hour(connection, now=now)
    lock_reference(connection, reference)
    found = fetch(connection, "payouts/find_payout", reference=reference)
    if found:
        asked = (owner, currency, by, reason, everything)
        return _replay(found[0], asked=asked, amount_minor=amount_minor, places=places[found[0]["currency"]])
    wallets = fetch(connection, "payouts/lock_wallet", owner=owner, currency=currency)
    if not wallets:
        raise _no_wallet(owner, currency)
    if not override:
        _require_payable(connection, wallets[0], owner=owner)
    if not fetch(connection, "payouts/find_destination", owner=owner):
        raise PayoutRefused(
            f"owner {owner!r}: has no payout destination; set one first",
            owner=owner,
            allowed=("set_destination",),
        )
    balance_minor = wallets[0]["balance_minor"]
    wanted_minor = balance_minor if amount_minor is None else amount_minor
    _require_amount(
        owner, currency, wanted_minor, balance_minor=balance_minor, places=places[currency], policy=policy
    )
    rows = fetch(
        connection,
        "payouts/request_payout",
        wallet_id=wallets[0]["wallet_id"],
        amount_minor=wanted_minor,
        whole_balance=everything,
        reference=reference,
        requested_by=by,
        override_reason=reason,
        now=now,
    )
    if not rows or rows[0]["balance_after_minor"] != balance_minor - wanted_minor:
        raise BooksOutOfBalance(f"payout of {wanted_minor} minor units to {owner!r} failed; roll back")
    return Payout(
        payout_id=rows[0]["payout_id"],
        owner=owner,
        currency=currency,
        amount_minor=wanted_minor,
        state=PayoutState.REQUESTED,
    )


def _require_payable(connection: AnyConnection, wallet: Row, *, owner: str) -> None:
    """Refuse an owner to whom nothing is paid out without an admin's override.

    `lock_requested.sql`, `lock_scheduled.sql`, `request_scheduled.sql` and `unpayable_in_batch.sql` have the
    same conditions.
    """
    if wallet["owner_freeze_id"] is not None:
        raise PayoutRefused(
            f"owner {owner!r}: frozen, so nothing is paid out; unfreeze the owner, or override as an admin",
            owner=owner,
            state="FROZEN",
            allowed=("unfreeze_owner", "override"),
        )
    if fetch(connection, "payouts/debt_of_owner", owner=owner)[0]["debt_minor"]:
        raise PayoutRefused(
            f"owner {owner!r}: owes a debt, so nothing is paid out; recover or forgive it, or override as an"
            " admin",
            owner=owner,
            state="INDEBTED",
            allowed=("recover_debts", "forgive_debt", "override"),
        )


def _require_amount(
    owner: str, currency: str, amount_minor: int, *, balance_minor: int, places: int, policy: PayoutPolicy
) -> None:
    shown, balance = format_amount(amount_minor, places), format_amount(balance_minor, places)
    if not 0 < amount_minor <= balance_minor:
        raise InsufficientFunds(
            f"wallet of {owner!r}: cannot pay out {shown} {currency}; its balance is {balance}", owner=owner
        )
    if amount_minor == balance_minor:
        # All of a balance can be more than one transaction may move.
        parse_amount(balance, currency, places)
    minimum_minor = policy.minimum_minor(currency, places)
    if amount_minor < minimum_minor:
        raise PayoutRefused(
            f"wallet of {owner!r}: {shown} {currency} is below the minimum of a payout,"
            f" {format_amount(minimum_minor, places)}",
            owner=owner,
        )


def _no_wallet(owner: str, currency: str) -> NotFound:
    return NotFound(f"wallet of {owner!r} in {currency}: does not exist", owner=owner)


def _replay(
    found: Row, *, asked: tuple[str, str, str, str | None, bool], amount_minor: int | None, places: int
) -> Payout:
    did = (
        found["owner"],
        found["currency"],
        found["requested_by"],
        found["override_reason"],
        found["whole_balance"],
    )
    if did != asked or amount_minor not in {None, found["amount_minor"]}:
        raise ReferenceConflict(
            f"reference {found['reference']!r}: already used for payout {found['payout_id']} of"
            f" {format_amount(found['amount_minor'], places)} {found['currency']} to {found['owner']!r}"
            f" by {found['requested_by']!r}",
            reference=found["reference"],
            payout_id=found["payout_id"],
        )
    return Payout(
        payout_id=found["payout_id"],
        owner=found["owner"],
        currency=found["currency"],
        amount_minor=found["amount_minor"],
        state=PayoutState(found["state"]),
        replayed=True,
    )
