"""Read holds, wallets, statements, backjobs, debts and payouts, page by page."""

from buffer_pipeline.reads.backjobs import BackjobRecord, list_backjobs
from buffer_pipeline.reads.debts import Debt, list_debts
from buffer_pipeline.reads.holds import Hold, Role, find_hold, list_holds
from buffer_pipeline.reads.page import LIMIT, LIMIT_MAX, Page, every_item
from buffer_pipeline.reads.payouts import PayoutRecord, list_payouts
from buffer_pipeline.reads.statements import StatementLine, statement
from buffer_pipeline.reads.wallets import Wallet, find_wallet, list_wallets

__all__ = [
    "LIMIT",
    "LIMIT_MAX",
    "BackjobRecord",
    "Debt",
    "Hold",
    "Page",
    "PayoutRecord",
    "Role",
    "StatementLine",
    "Wallet",
    "every_item",
    "find_hold",
    "find_wallet",
    "list_backjobs",
    "list_debts",
    "list_holds",
    "list_payouts",
    "list_wallets",
    "statement",
]
