"""Money enters and leaves a wallet's balance. Pending earnings are out of reach here."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from buffer_pipeline.currencies import bring_in, coming_in, places_of
from buffer_pipeline.database import AnyConnection, fetch
from buffer_pipeline.errors import InsufficientFunds, NotFound, ReferenceConflict
from buffer_pipeline.inputs import require_text, require_time
from buffer_pipeline.money import format_amount, parse_amount, wallet_full

# From which account to which, by type of transaction.
_ACCOUNTS: Final = {
    "DEPOSIT": ("EXTERNAL", "BALANCE"),
    "WITHDRAWAL": ("BALANCE", "EXTERNAL"),
    "OPENING_BALANCE": ("OPENING", "BALANCE"),
}


@dataclass(frozen=True, kw_only=True)
class Movement:
    """A movement of a balance; `balance_minor` is the wallet's balance now."""

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
) -> Movement:
    """Add money from outside to the owner's balance; the wallet is opened when there is none.

    `reference` is the idempotency key. Safe to run again with the same content.

    Raises:
        InvalidInput: an amount, currency or text that cannot be accepted.
        ReferenceConflict: the reference stands for another movement.
        WalletFull: more than a wallet can hold.
        Refused: another transaction added the currency meanwhile, with other places; roll back.
    """
    return _move(
        connection,
        movement_type="DEPOSIT",
        owner=owner,
        amount=amount,
        currency=currency,
        reference=reference,
        now=now,
    )


def withdraw(
    connection: AnyConnection,
    *,
    owner: str,
    amount: Decimal | int | str,
    currency: str,
    reference: str,
    now: datetime,
) -> Movement:
    """Take money out of the owner's balance.

    `reference` is the idempotency key. Safe to run again with the same content.

    Raises:
        InvalidInput: an amount, currency or text that cannot be accepted.
        NotFound: the owner has no wallet in this currency.
        InsufficientFunds: more than the balance; pending earnings don't count.
        ReferenceConflict: the reference stands for another movement.
    """
    return _move(
        connection,
        movement_type="WITHDRAWAL",
        owner=owner,
        amount=amount,
        currency=currency,
        reference=reference,
        now=now,
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
    """Bring over a balance from the books that these replace. As `deposit` otherwise."""
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
) -> Movement:
    require_time("now", now)
    require_text("owner", owner)
    require_text("reference", reference)
    known = places_of(connection)
    places = coming_in(known, currency)
    amount_minor = parse_amount(amount, currency, places)
    content = (movement_type, owner, currency, amount_minor)

    replay = _find(connection, reference=reference, content=content)
    if replay is not None:
        return replay
    from_account, to_account = _ACCOUNTS[movement_type]
    if to_account == "BALANCE":
        bring_in(connection, {currency: places}, known=known)
        fetch(connection, "ensure_wallets", owners=[owner], currencies=[currency])
    wallets = fetch(connection, "lock_wallet", owner=owner, currency=currency)
    # A wallet in a currency that came in since its places were looked for is not for this amount.
    if not wallets or (from_account == "BALANCE" and currency not in known):
        raise NotFound(f"wallet of {owner!r} in {currency}: does not exist", owner=owner)
    # Once more, now that whoever held the wallet has committed.
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
        "move_money",
        type=movement_type,
        from_account=from_account,
        to_account=to_account,
        wallet_id=wallets[0]["wallet_id"],
        amount_minor=amount_minor,
        reference=reference,
        now=now,
    )
    if not rows:
        # Somebody used the reference on another wallet and committed first, or there is no room.
        replay = _find(connection, reference=reference, content=content)
        if replay is None:
            raise wallet_full(owner, amount_minor, currency, places)
        return replay
    return Movement(
        transaction_id=rows[0]["transaction_id"],
        balance_minor=rows[0]["balance_after_minor"],
        replayed=False,
    )


def _find(
    connection: AnyConnection, *, reference: str, content: tuple[str, str, str, int]
) -> Movement | None:
    rows = fetch(connection, "find_movement", reference=reference)
    if not rows:
        return None
    row = rows[0]
    if (row["type"], row["owner"], row["currency"], row["amount_minor"]) != content:
        places = places_of(connection)[row["currency"]]
        raise ReferenceConflict(
            f"reference {reference!r}: stands for transaction {row['transaction_id']}, a {row['type']}"
            f" of {format_amount(row['amount_minor'], places)} {row['currency']}"
            f" for {row['owner']!r}",
            reference=reference,
            transaction_id=row["transaction_id"],
        )
    return Movement(transaction_id=row["transaction_id"], balance_minor=row["balance_minor"], replayed=True)
