"""The payment buffer of a marketplace: hold earnings, release them on the hour, refund on a backjob.

Each verb takes a connection in a transaction that the caller owns, and never commits.
"""

from buffer_pipeline.backjob import (
    Backjob,
    approve_backjob,
    reject_backjob,
    request_backjob,
    withdraw_backjob,
)
from buffer_pipeline.contact import Contact, find_contacts, set_contact
from buffer_pipeline.errors import (
    BackjobRefused,
    BooksOutOfBalance,
    FreezeRefused,
    InsufficientFunds,
    InvalidInput,
    JobConflict,
    NotAllowed,
    NotFound,
    PaymentBufferError,
    ReferenceConflict,
    Refused,
    StateRefused,
    WalletFull,
    WindowClosed,
)
from buffer_pipeline.freeze import Freeze, freeze_hold, unfreeze_hold
from buffer_pipeline.hold import BackjobState, FreezeKind, HoldState
from buffer_pipeline.inbox import InboxMessage, count_unread, list_inbox, mark_all_read, mark_read
from buffer_pipeline.intake import AddedHold, Earning, add_many_pending_earnings, add_pending_earnings
from buffer_pipeline.policy import Policy
from buffer_pipeline.refund import Refund, refund_hold
from buffer_pipeline.release import ReleaseBatch, ReleasePosition, release_early, release_matured
from buffer_pipeline.wallet import Movement, deposit, withdraw

__all__ = [
    "AddedHold",
    "Backjob",
    "BackjobRefused",
    "BackjobState",
    "BooksOutOfBalance",
    "Contact",
    "Earning",
    "Freeze",
    "FreezeKind",
    "FreezeRefused",
    "HoldState",
    "InboxMessage",
    "InsufficientFunds",
    "InvalidInput",
    "JobConflict",
    "Movement",
    "NotAllowed",
    "NotFound",
    "PaymentBufferError",
    "Policy",
    "ReferenceConflict",
    "Refund",
    "Refused",
    "ReleaseBatch",
    "ReleasePosition",
    "StateRefused",
    "WalletFull",
    "WindowClosed",
    "add_many_pending_earnings",
    "add_pending_earnings",
    "approve_backjob",
    "count_unread",
    "deposit",
    "find_contacts",
    "freeze_hold",
    "list_inbox",
    "mark_all_read",
    "mark_read",
    "refund_hold",
    "reject_backjob",
    "release_early",
    "release_matured",
    "request_backjob",
    "set_contact",
    "unfreeze_hold",
    "withdraw",
    "withdraw_backjob",
]
