"""Pay the debts of wallets from their balances: the locks, the budget of a release, and the statement."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from buffer_pipeline.database import AnyConnection, array_text, fetch, savepoint
from buffer_pipeline.errors import BooksOutOfBalance
from buffer_pipeline.locks import lock_wallets


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """What was paid of one debt, in minor units."""

    debt_id: int
    wallet_id: int
    currency: str
    amount_minor: int


def lock_wallets_and_creditors(connection: AnyConnection, wallet_ids: Iterable[int]) -> None:
    """Lock wallets and their creditors' wallets, in one order. Waits until others release their locks.

    A debt may be opened while this waits for a wallet. To lock its creditor after the others could be a
    deadlock, so all locks are given up and taken again in their order.
    """
    wanted = sorted(set(wallet_ids))
    while True:
        with suppress(_CreditorIsMissing), savepoint(connection):
            locked = {*wanted, *_creditors_of(connection, wanted)}
            lock_wallets(connection, locked)
            if not locked.issuperset(_creditors_of(connection, wanted)):
                raise _CreditorIsMissing
            return


def skip_locked_creditors(connection: AnyConnection, wallet_ids: Iterable[int]) -> set[int]:
    """Lock the creditors of wallets, which the caller has locked, without waiting.

    Return the wallets of which another transaction has locked a creditor.
    """
    rows = fetch(connection, "debts/lock_free_creditors", wallet_ids=array_text(sorted(set(wallet_ids))))
    return {row["wallet_id"] for row in rows}


def recover_from_release(
    connection: AnyConnection,
    *,
    hold_ids: Sequence[int],
    amounts_minor: Sequence[int],
    batch_id: int,
    now: datetime,
) -> list[Recovered]:
    """Pay the debts of payees from what these holds have just released to them, the oldest debt first.

    At most `recovery_percent` of each hold's rule is used. Waits for the wallets of the creditors, unless the
    caller has locked them.

    Raises:
        BooksOutOfBalance: a payment has no transaction; roll back.
    """
    budgets = fetch(
        connection,
        "debts/budgets_of_holds",
        hold_ids=array_text(hold_ids),
        amounts_minor=array_text(amounts_minor),
    )
    if not budgets:
        return []
    creditors = {wallet_id for row in budgets for wallet_id in row["creditor_ids"]}
    lock_wallets(connection, {row["wallet_id"] for row in budgets} | creditors)
    return recover(
        connection,
        {row["wallet_id"]: row["budget_minor"] for row in budgets},
        batch_id=batch_id,
        now=now,
    )


def recover(
    connection: AnyConnection, budgets_minor: dict[int, int], *, batch_id: int, now: datetime
) -> list[Recovered]:
    """Pay the debts of wallets from their balances, at most so much of each, the oldest debt first.

    The caller has locked these wallets and their creditors.

    Raises:
        BooksOutOfBalance: a payment has no transaction; roll back.
    """
    rows = fetch(
        connection,
        "debts/recover_debts",
        wallet_ids=array_text(list(budgets_minor)),
        budgets_minor=array_text(list(budgets_minor.values())),
        batch_id=batch_id,
        now=now,
    )
    for row in rows:
        if row["paid_minor"] != row["line_minor"]:
            raise BooksOutOfBalance(
                f"debt {row['debt_id']}: {row['paid_minor']} minor units were recovered and"
                f" {row['line_minor']} written; roll back"
            )
    return [
        Recovered(
            debt_id=row["debt_id"],
            wallet_id=row["wallet_id"],
            currency=row["currency"],
            amount_minor=row["paid_minor"],
        )
        for row in rows
    ]


def total_by_currency(recovered: Iterable[Recovered]) -> dict[str, int]:
    """Return what was recovered, currency -> minor units."""
    total: dict[str, int] = {}
    for each in recovered:
        total[each.currency] = total.get(each.currency, 0) + each.amount_minor
    return total


class _CreditorIsMissing(Exception):
    """A debt was opened after the wallets to be locked were read."""


def _creditors_of(connection: AnyConnection, wallet_ids: Sequence[int]) -> list[int]:
    rows = fetch(connection, "debts/creditors_of", wallet_ids=array_text(wallet_ids))
    return [row["wallet_id"] for row in rows]
