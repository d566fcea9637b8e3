"""The payment buffer of a marketplace: hold earnings, release them on the hour, refund on a backjob.

Each verb takes a connection in a transaction that the caller owns, and never commits.

A module is imported when one of its names is first used, so that the command line can start without
SQLAlchemy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from buffer_pipeline.public_names import MODULES

if TYPE_CHECKING:
    from buffer_pipeline.backjob import (
        Backjob,
        approve_backjob,
        reject_backjob,
        request_backjob,
        withdraw_backjob,
    )
    from buffer_pipeline.debts import (
        Clawback,
        ClawbackTo,
        DebtRecovery,
        Forgiven,
        claw_back,
        forgive_debt,
        recover_debts,
    )
    from buffer_pipeline.errors import (
        BackjobRefused,
        BooksOutOfBalance,
        DateRefused,
        DebtRefused,
        FreezeRefused,
        InsufficientFunds,
        InvalidInput,
        JobConflict,
        NotAllowed,
        NotFound,
        PaymentBufferError,
        PayoutRefused,
        ReferenceConflict,
        Refused,
        RuleRefused,
        StateRefused,
        WalletFull,
        WindowClosed,
    )
    from buffer_pipeline.explain import (
        Actor,
        Explanation,
        Reason,
        ReasonCode,
        Way,
        WayVerb,
        explain_hold,
    )
    from buffer_pipeline.freeze import Freeze, freeze_hold, unfreeze_hold
    from buffer_pipeline.hold import BackjobState, FreezeKind, HoldState
    from buffer_pipeline.intake import (
        AddedHold,
        AddedShare,
        Earning,
        add_many_pending_earnings,
        add_pending_earnings,
    )
    from buffer_pipeline.notifications.contact import Contact, find_contacts, set_contact
    from buffer_pipeline.notifications.inbox import (
        InboxMessage,
        count_unread,
        list_inbox,
        mark_all_read,
        mark_read,
    )
    from buffer_pipeline.owner_freeze import OwnerFreeze, freeze_owner, unfreeze_owner
    from buffer_pipeline.payouts import (
        BankIds,
        Destination,
        MarkedPayouts,
        OwnerSchedule,
        Payout,
        PayoutBatch,
        PayoutBatchState,
        PayoutExported,
        PayoutLine,
        PayoutMethod,
        PayoutResult,
        PayoutSchedule,
        PayoutState,
        PayoutStatusFile,
        RestOfBatch,
        ScheduledPayouts,
        approve_payout_batch,
        bank_ids,
        cancel_payout,
        cancel_payout_batch,
        make_payout_batch,
        mark_payouts,
        payout_exports,
        payout_lines,
        payout_status_files,
        record_payout_export,
        request_payout,
        request_scheduled_payouts,
        send_payout_batch,
        set_destination,
        set_payout_schedule,
        show_destination,
        show_payout_schedule,
    )
    from buffer_pipeline.policy import PayoutPolicy, Policy
    from buffer_pipeline.reads import (
        BackjobRecord,
        Debt,
        Hold,
        Page,
        PayoutRecord,
        Role,
        StatementLine,
        Wallet,
        every_item,
        find_hold,
        find_wallet,
        list_backjobs,
        list_debts,
        list_holds,
        list_payouts,
        list_wallets,
        statement,
    )
    from buffer_pipeline.refund import Refund, refund_hold
    from buffer_pipeline.release import ReleaseBatch, ReleasePosition, release_early, release_matured
    from buffer_pipeline.reschedule import Rescheduled, reschedule_hold
    from buffer_pipeline.rules import (
        HoldRule,
        OnRefund,
        RuleAssignment,
        TaxOf,
        add_rule,
        assign_rule,
        list_rules,
        retire_rule,
        show_rule,
        unassign_rule,
    )
    from buffer_pipeline.shares import Share, ShareKind
    from buffer_pipeline.wallet import Movement, deposit, withdraw

__all__ = [
    "Actor",
    "AddedHold",
    "AddedShare",
    "Backjob",
    "BackjobRecord",
    "BackjobRefused",
    "BackjobState",
    "BankIds",
    "BooksOutOfBalance",
    "Clawback",
    "ClawbackTo",
    "Contact",
    "DateRefused",
    "Debt",
    "DebtRecovery",
    "DebtRefused",
    "Destination",
    "Earning",
    "Explanation",
    "Forgiven",
    "Freeze",
    "FreezeKind",
    "FreezeRefused",
    "Hold",
    "HoldRule",
    "HoldState",
    "InboxMessage",
    "InsufficientFunds",
    "InvalidInput",
    "JobConflict",
    "MarkedPayouts",
    "Movement",
    "NotAllowed",
    "NotFound",
    "OnRefund",
    "OwnerFreeze",
    "OwnerSchedule",
    "Page",
    "PaymentBufferError",
    "Payout",
    "PayoutBatch",
    "PayoutBatchState",
    "PayoutExported",
    "PayoutLine",
    "PayoutMethod",
    "PayoutPolicy",
    "PayoutRecord",
    "PayoutRefused",
    "PayoutResult",
    "PayoutSchedule",
    "PayoutState",
    "PayoutStatusFile",
    "Policy",
    "Reason",
    "ReasonCode",
    "ReferenceConflict",
    "Refund",
    "Refused",
    "ReleaseBatch",
    "ReleasePosition",
    "Rescheduled",
    "RestOfBatch",
    "Role",
    "RuleAssignment",
    "RuleRefused",
    "ScheduledPayouts",
    "Share",
    "ShareKind",
    "StateRefused",
    "StatementLine",
    "TaxOf",
    "Wallet",
    "WalletFull",
    "Way",
    "WayVerb",
    "WindowClosed",
    "add_many_pending_earnings",
    "add_pending_earnings",
    "add_rule",
    "approve_backjob",
    "approve_payout_batch",
    "assign_rule",
    "bank_ids",
    "cancel_payout",
    "cancel_payout_batch",
    "claw_back",
    "count_unread",
    "deposit",
    "every_item",
    "explain_hold",
    "find_contacts",
    "find_hold",
    "find_wallet",
    "forgive_debt",
    "freeze_hold",
    "freeze_owner",
    "list_backjobs",
    "list_debts",
    "list_holds",
    "list_inbox",
    "list_payouts",
    "list_rules",
    "list_wallets",
    "make_payout_batch",
    "mark_all_read",
    "mark_payouts",
    "mark_read",
    "payout_exports",
    "payout_lines",
    "payout_status_files",
    "record_payout_export",
    "recover_debts",
    "refund_hold",
    "reject_backjob",
    "release_early",
    "release_matured",
    "request_backjob",
    "request_payout",
    "request_scheduled_payouts",
    "reschedule_hold",
    "retire_rule",
    "send_payout_batch",
    "set_contact",
    "set_destination",
    "set_payout_schedule",
    "show_destination",
    "show_payout_schedule",
    "show_rule",
    "statement",
    "unassign_rule",
    "unfreeze_hold",
    "unfreeze_owner",
    "withdraw",
    "withdraw_backjob",
]

_MODULES = MODULES
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
