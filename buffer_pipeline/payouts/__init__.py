"""Payouts: money on its way from a balance to a bank account, in batches that somebody else approves."""

from buffer_pipeline.payouts.bank_ids import BankIds, bank_ids
from buffer_pipeline.payouts.batch import (
    PayoutBatch,
    approve_payout_batch,
    cancel_payout_batch,
    make_payout_batch,
    send_payout_batch,
)
from buffer_pipeline.payouts.cancel import cancel_payout
from buffer_pipeline.payouts.destination import (
    Destination,
    PayoutMethod,
    set_destination,
    show_destination,
)
from buffer_pipeline.payouts.exported import PayoutExported, payout_exports, record_payout_export
from buffer_pipeline.payouts.lines import PayoutLine, payout_lines
from buffer_pipeline.payouts.mark import MarkedPayouts, mark_payouts
from buffer_pipeline.payouts.request import Payout, request_payout
from buffer_pipeline.payouts.result import PayoutResult, RestOfBatch
from buffer_pipeline.payouts.schedule import (
    OwnerSchedule,
    PayoutSchedule,
    ScheduledPayouts,
    request_scheduled_payouts,
    set_payout_schedule,
    show_payout_schedule,
)
from buffer_pipeline.payouts.scheduled_batches import (
    LeftPayouts,
    ScheduledBatches,
    make_scheduled_batches,
)
from buffer_pipeline.payouts.state import PayoutBatchState, PayoutState
from buffer_pipeline.payouts.status_files import PayoutStatusFile, payout_status_files

__all__ = [
    "BankIds",
    "Destination",
    "LeftPayouts",
    "MarkedPayouts",
    "OwnerSchedule",
    "Payout",
    "PayoutBatch",
    "PayoutBatchState",
    "PayoutExported",
    "PayoutLine",
    "PayoutMethod",
    "PayoutResult",
    "PayoutSchedule",
    "PayoutState",
    "PayoutStatusFile",
    "RestOfBatch",
    "ScheduledBatches",
    "ScheduledPayouts",
    "approve_payout_batch",
    "bank_ids",
    "cancel_payout",
    "cancel_payout_batch",
    "make_payout_batch",
    "make_scheduled_batches",
    "mark_payouts",
    "payout_exports",
    "payout_lines",
    "payout_status_files",
    "record_payout_export",
    "request_payout",
    "request_scheduled_payouts",
    "send_payout_batch",
    "set_destination",
    "set_payout_schedule",
    "show_destination",
    "show_payout_schedule",
]
