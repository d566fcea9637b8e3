"""Claw-backs by an admin, and the debts that they leave."""

from typing import Any

from sqlalchemy import Connection, select

from buffer_pipeline.debts import Clawback, ClawbackTo, claw_back, forgive_debt, recover_debts
from buffer_pipeline.debts.forgive import Forgiven
from buffer_pipeline.debts.recover import DebtRecovery
from buffer_pipeline.hold import HoldState
from buffer_pipeline.tables import debt, transaction, wallet
from buffer_pipeline.wallet import deposit, withdraw
from buffer_pipeline_tests.support.builders import ADMIN, DAY_7, NOON, PAYEE, place_hold


def take_back(connection: Connection, hold_id: int, amount: str = "1000.00", **changes: Any) -> Clawback:
    """Take back for the payer as an admin, with some arguments changed."""
    arguments = {
        "to": ClawbackTo.PAYER,
        "by": ADMIN,
        "reason": "chargeback 17",
        "reference": "claw-back-1",
        "now": DAY_7,
    }
    return claw_back(connection, hold_id=hold_id, amount=amount, **{**arguments, **changes})


def forgive(connection: Connection, debt_id: int, **changes: Any) -> Forgiven:
    """Forgive a debt as an admin, with some arguments changed."""
    arguments = {"by": ADMIN, "reason": "a good worker", "now": DAY_7}
    return forgive_debt(connection, debt_id=debt_id, **{**arguments, **changes})


def recover_now(connection: Connection, owner: str = PAYEE, **changes: Any) -> DebtRecovery:
    """Recover from the balance as an admin, with some arguments changed."""
    return recover_debts(connection, owner=owner, **{"by": ADMIN, "now": DAY_7, **changes})


def place_released(connection: Connection, *, spent: str | None = None, **changes: Any) -> int:
    """Hold 1000.00, release it early, and let the payee withdraw `spent` of it."""
    hold_id = place_hold(connection, state=HoldState.RELEASED, **changes)
    if spent is not None:
        take_out(connection, spent, owner=changes.get("payee", PAYEE))
    return hold_id


def take_out(connection: Connection, amount: str, *, owner: str = PAYEE) -> None:
    """Withdraw from a balance."""
    number = len(lines(connection))
    withdraw(connection, owner=owner, amount=amount, currency="PHP", reference=f"out-{number}", now=NOON)


def put_in(connection: Connection, amount: str, *, owner: str = PAYEE, currency: str = "PHP") -> None:
    """Deposit into a balance."""
    number = len(lines(connection))
    deposit(connection, owner=owner, amount=amount, currency=currency, reference=f"in-{number}", now=NOON)


def place_debt(connection: Connection, **changes: Any) -> int:
    """Take back 1000.00 of which the payee has spent 600.00; return the debt of 600.00."""
    hold_id = place_released(connection, spent="600.00")
    return take_back(connection, hold_id, **changes).debt_ids[0]


def lines(connection: Connection, *types: str) -> list[tuple[Any, ...]]:
    """Return (type, from, to, amount, balance after, balance after of the sender) of all transactions."""
    rows = connection.execute(
        select(
            transaction.c.type,
            transaction.c.from_account,
            transaction.c.to_account,
            transaction.c.amount_minor,
            transaction.c.balance_after_minor,
            transaction.c.from_balance_after_minor,
        ).order_by(transaction.c.transaction_id)
    ).all()
    return [tuple(row) for row in rows if not types or row.type in types]


def outstanding(connection: Connection) -> list[int]:
    """Return what is outstanding of each debt, the oldest first."""
    return list(connection.scalars(select(debt.c.outstanding_minor).order_by(debt.c.debt_id)))


def owes(connection: Connection, owner: str = PAYEE) -> int:
    """Return what an owner's wallet says that it owes."""
    owed: int = connection.scalars(select(wallet.c.debt_minor).where(wallet.c.owner == owner)).one()
    return owed
