"""Pay an owner's debts from their balance now, because somebody asks for it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from buffer_pipeline.database import AnyConnection, Row, fetch, savepoint
from buffer_pipeline.debts.replay import require_same
from buffer_pipeline.errors import DebtRefused, InsufficientFunds, WalletFull
from buffer_pipeline.hours import enter_hour
from buffer_pipeline.inputs import require_reason, require_text, require_time
from buffer_pipeline.locks import lock_reference
from buffer_pipeline.recovery import Recovered, lock_wallets_and_creditors, recover, total_by_currency

ASKED_FOR: Final = "asked for"
"""The reason of a recovery whose caller gives none."""


@dataclass(frozen=True, kw_only=True)
class DebtRecovery:
    """What was paid of an owner's debts: in all, currency -> minor units, and of each debt.

    `replayed` is True if an earlier call with the same reference did the work.
    """

    owner: str
    recovered_minor: dict[str, int] = field(default_factory=dict)
    debts: tuple[Recovered, ...] = ()
    replayed: bool = False


def recover_debts(
    connection: AnyConnection,
    *,
    owner: str,
    by: str,
    now: datetime,
    reason: str | None = None,
    reference: str | None = None,
) -> DebtRecovery:
    """Pay an owner's debts from the balances of their wallets, the oldest debt first.

    Releases do so by themselves; deposits do not, so this is for what was deposited. The owner and the payers
    who get something are notified. `reference` is the idempotency key. Without one, a repeated call takes
    what has come into the balance since.

    Raises:
        DebtRefused: the owner owes nothing.
        InsufficientFunds: the owner's balance is empty in each currency in which they owe something.
        WalletFull: the wallets of all creditors are full.
        ReferenceConflict: the reference was used for something else.
    """
    require_time("now", now)
    require_text("owner", owner)
    require_text("by", by)
    if reason is not None:
        require_reason(reason)
    reason = reason or ASKED_FOR
    enter_hour(connection, now=now)
    if reference is not None:
        lock_reference(connection, reference)
        found = fetch(connection, "debts/find_recovery", reference=reference, owner=owner)
        if found:
            return _replay(connection, found, owner=owner, by=by, reason=reason)
    wallets = fetch(connection, "debts/debtors_of_owner", owner=owner)
    lock_wallets_and_creditors(connection, [wallet["wallet_id"] for wallet in wallets])
    wallets = [
        wallet
        for wallet in fetch(connection, "debts/debtors_of_owner", owner=owner)
        if wallet["debt_minor"] > 0
    ]
    if not wallets:
        raise DebtRefused(f"owner {owner!r}: has no open debt", owner=owner)
    budgets = {wallet["wallet_id"]: wallet["balance_minor"] for wallet in wallets if wallet["balance_minor"]}
    if not budgets:
        raise InsufficientFunds(
            f"owner {owner!r}: nothing to recover debts from; the balance is 0", owner=owner
        )
    # If all creditors are full, the batch would be empty, so it is undone.
    with savepoint(connection):
        batch_id = fetch(
            connection, "debts/open_recovery", asked_by=by, reason=reason, reference=reference, now=now
        )[0]["batch_id"]
        recovered = recover(connection, budgets, batch_id=batch_id, now=now)
        if not recovered:
            raise WalletFull(f"owner {owner!r}: the wallets of all creditors are full", owner=owner)
    return DebtRecovery(owner=owner, recovered_minor=total_by_currency(recovered), debts=tuple(recovered))


def _replay(
    connection: AnyConnection, found: Sequence[Row], *, owner: str, by: str, reason: str
) -> DebtRecovery:
    first = found[0]
    same = (first["source"], first["reason"]) == (by, reason) and first["debt_id"] is not None
    require_same(connection, first, kind="RECOVERY", same=same)
    debts = tuple(
        Recovered(
            debt_id=row["debt_id"],
            wallet_id=row["wallet_id"],
            currency=row["currency"],
            amount_minor=row["amount_minor"],
        )
        for row in found
    )
    return DebtRecovery(owner=owner, recovered_minor=total_by_currency(debts), debts=debts, replayed=True)
