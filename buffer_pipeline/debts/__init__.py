"""Money that is taken back after it was released, and the debts that this leaves."""

from buffer_pipeline.debts.claw_back import Clawback, claw_back
from buffer_pipeline.debts.forgive import Forgiven, forgive_debt
from buffer_pipeline.debts.recover import DebtRecovery, recover_debts
from buffer_pipeline.debts.split import ClawbackTo

__all__ = [
    "Clawback",
    "ClawbackTo",
    "DebtRecovery",
    "Forgiven",
    "claw_back",
    "forgive_debt",
    "recover_debts",
]
