"""Claw-backs and debts, and a superuser's statements that break their invariants."""

from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection

from buffer_pipeline.debts import ClawbackTo
from buffer_pipeline_tests.support.debts import place_debt, place_released, take_back


def _a_debt_that_nobody_has_paid(connection: Connection) -> tuple[str, ...]:
    place_debt(connection)
    return (
        "UPDATE buffer.debt SET outstanding_minor = outstanding_minor - 1",
        "UPDATE buffer.wallet SET debt_minor = debt_minor - 1 WHERE debt_minor > 0",
    )


def _a_wallet_that_names_no_debt(connection: Connection) -> tuple[str, ...]:
    place_debt(connection)
    return ("UPDATE buffer.wallet SET debt_minor = 0",)


def _a_share_of_another_amount(connection: Connection) -> tuple[str, ...]:
    take_back(connection, place_released(connection), "500.00")
    return ("UPDATE buffer.clawback_share SET amount_minor = amount_minor - 1",)


def _more_than_was_earned(connection: Connection) -> tuple[str, ...]:
    take_back(connection, place_released(connection), "1000.00")
    return ("UPDATE buffer.clawback_share SET amount_minor = amount_minor + 1",)


def _another_receivable(connection: Connection) -> tuple[str, ...]:
    place_debt(connection, to=ClawbackTo.BANK)
    return ("UPDATE buffer.transaction SET amount_minor = amount_minor - 1 WHERE type = 'ADVANCE'",)


BROKEN_DEBTS: Final[dict[str, Callable[[Connection], tuple[str, ...]]]] = {
    "debt_equals_its_transactions": _a_debt_that_nobody_has_paid,
    "wallet_names_its_debts": _a_wallet_that_names_no_debt,
    "claw_back_equals_its_shares": _a_share_of_another_amount,
    "hold_gave_back_no_more_than_it_earned": _more_than_was_earned,
    "receivable_equals_debts_to_banks": _another_receivable,
}
"""Invariant -> a function that sets up rows and returns a superuser's statements that break it."""
