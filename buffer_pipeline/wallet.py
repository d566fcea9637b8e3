"""Deposits to and withdrawals from a wallet's balance. Pending earnings cannot be withdrawn."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple

from buffer_pipeline.currencies import bring_in, coming_in, places_of
from buffer_pipeline.database import AnyConnection, fetch
from buffer_pipeline.errors import InsufficientFunds, InvalidInput, NotFound, ReferenceConflict
from buffer_pipeline.hours import enter_hour
from buffer_pipeline.inputs import require_reason, require_text, require_time
from buffer_pipeline.money import format_amount, parse_amount, wallet_full

# Type of transaction -> the account that money leaves and the account that it enters.
_ACCOUNTS: Final = {
    "DEPOSIT": ("EXTERNAL", "BALANCE"),
    "WITHDRAWAL": ("BALANCE", "EXTERNAL"),
    "OPENING_BALANCE": ("OPENING", "BALANCE"),
}


class _Content(NamedTuple):
    """What a movement with the same reference must repeat."""

    type: str
    owner: str
    currency: str
    amount_minor: int
    by: str | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class Movement:
    """A movement of a balance. `balance_minor` is the wallet's balance now.

    `replayed` is True if an earlier call with the same reference did the work.
    """

    transaction_id: int
    balance_minor: int
    replayed: bool


def deposit(
    connection: AnyConnection,
    *,
    owner: str,
    amount: Decimal | int | str,
    currency: str,
    reference: str,
    now: datetime,
    by: str | None = None,
    reason: str | None = None,
) -> Movement:
    """Add money from outside to the owner's balance. The wallet is made if there is none.

    `reference` is the idempotency key. Safe to run again with the same content. `by` and `reason` say who
    moved the money and why, for the audit trail.

    Raises:
        InvalidInput: an amount, currency or text that cannot be accepted; a reason without `by`; or, with
            `by`, a `now` that is more than a day after the database's clock.
        ReferenceConflict: the reference was used for another movement, or by somebody else.
        WalletFull: the wallet cannot hold the amount.
        Refused: another transaction added the currency at the same time with other places; roll back.
    """
    return _move(
        connection,
        movement_type="DEPOSIT",
        owner=owner,
        amount=amount,
        currency=currency,
        reference=reference,
        now=now,
        by=by,
        reason=reason,
    )


def withdraw(
    connection: AnyConnection,
    *,
    owner: str,
    amount: Decimal | int | str,
    currency: str,
    reference: str,
    now: datetime,
    by: str | None = None,
    reason: str | None = None,
) -> Movement:
    """Take money out of the owner's balance.

    `reference`, `by` and `reason` are as in `deposit`.

    Raises:
        InvalidInput: as in `deposit`.
        NotFound: the owner has no wallet in this currency.
        InsufficientFunds: more than the balance; pending earnings do not count.
        ReferenceConflict: the reference was used for another movement, or by somebody else.
    """
    return _move(
        connection,
        movement_type="WITHDRAWAL",
        owner=owner,
        amount=amount,
        currency=currency,
        reference=reference,
        now=now,
        by=by,
        reason=reason,
    )


def open_balance(
    connection: AnyConnection,
    *,
    owner: str,
    amount: Decimal | int | str,
    currency: str,
    reference: str,
    now: datetime,
) -> Movement:
    """Import a balance from the system that these books replace. Otherwise it is like `deposit`."""
    return _move(
        connection,
        movement_type="OPENING_BALANCE",
        owner=owner,
        amount=amount,
        currency=currency,
        reference=reference,
        now=now,
    )


def _move(
    connection: AnyConnection,
    *,
    movement_type: str,
    owner: str,
    amount: Decimal | int | str,
    currency: str,
    reference: str,
    now: datetime,
    by: str | None = None,
    reason: str | None = None,
) -> Movement:
    require_time("now", now)
    require_text("owner", owner)
    require_text("reference", reference)
    if by is not None:
        require_text("by", by)
    if reason is not None:
        require_reason(reason)
        if by is None:
            raise InvalidInput("reason: needs `by`, who gives it")
    known = places_of(connection)
    places = coming_in(known, currency)
    amount_minor = parse_amount(amount, currency, places)
    content = _Content(movement_type, owner, currency, amount_minor, by, reason)

    if by is not None:
        # Refuses a `now` that row-level security would not let into the audit trail.
        enter_hour(connection, now=now)
    replay = _find(connection, reference=reference, content=content)
    if replay is not None:
        return replay
    from_account, to_account = _ACCOUNTS[movement_type]
    if to_account == "BALANCE":
        bring_in(connection, {currency: places}, known=known)
        fetch(connection, "wallet/ensure_wallets", owners=[owner], currencies=[currency])
    wallets = fetch(connection, "wallet/lock_wallet", owner=owner, currency=currency)
    # If another transaction added the currency after its places were read, `amount_minor` may be in other
    # places than the wallet, so the wallet counts as missing.
    if not wallets or (from_account == "BALANCE" and currency not in known):
        raise NotFound(f"wallet of {owner!r} in {currency}: does not exist", owner=owner)
    # Look again: a transaction that had locked the wallet may have used the reference.
    replay = _find(connection, reference=reference, content=content)
    if replay is not None:
        return replay
    balance_minor = wallets[0]["balance_minor"]
    if from_account == "BALANCE" and amount_minor > balance_minor:
        raise InsufficientFunds(
            f"wallet of {owner!r}: cannot withdraw {format_amount(amount_minor, places)} {currency};"
            f" its balance is {format_amount(balance_minor, places)}",
            owner=owner,
        )
    rows = fetch(
        connection,
        "wallet/move_money",
        type=movement_type,
        from_account=from_account,
        to_account=to_account,
        wallet_id=wallets[0]["wallet_id"],
        amount_minor=amount_minor,
        reference=reference,
        now=now,
    )
    if not rows:
        # Another transaction used the reference on another wallet and committed first, or the wallet is full.
        replay = _find(connection, reference=reference, content=content)
        if replay is None:
            raise wallet_full(owner, amount_minor, currency, places)
        return replay
    transaction_id = rows[0]["transaction_id"]
    if by is not None:
        # Without `by`, a line would say no more than the transaction does.
        fetch(connection, "wallet/add_audit_line", transaction_id=transaction_id, moved_by=by, reason=reason)
    return Movement(
        transaction_id=transaction_id,
        balance_minor=rows[0]["balance_after_minor"],
        replayed=False,
    )


def _find(connection: AnyConnection, *, reference: str, content: _Content) -> Movement | None:
    rows = fetch(connection, "wallet/find_movement", reference=reference)
    if not rows:
        return None
    row = rows[0]
    same, moved_by = (row["type"], row["owner"], row["currency"], row["amount_minor"]) == content[:4], None
    if same and content.by is not None:
        # Compared where both say who has moved the money: callers of before do not.
        for line in fetch(connection, "wallet/find_audit_line", transaction_id=row["transaction_id"]):
            moved_by = line["moved_by"]
            same = (moved_by, line["reason"]) == (content.by, content.reason)
    if not same:
        places = places_of(connection)[row["currency"]]
        raise ReferenceConflict(
            f"reference {reference!r}: already used for transaction {row['transaction_id']}, a {row['type']}"
            f" of {format_amount(row['amount_minor'], places)} {row['currency']}"
            f" for {row['owner']!r}" + (f", by {moved_by!r}" if moved_by else ""),
            reference=reference,
            transaction_id=row["transaction_id"],
        )
    return Movement(transaction_id=row["transaction_id"], balance_minor=row["balance_minor"], replayed=True)
