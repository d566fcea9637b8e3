"""The tables of the books, in a PostgreSQL schema of their own.

All names are qualified with the schema. So the books can be in the platform's database beside its own
tables, and no statement depends on a search path. Alembic's migrations create the tables; a test
compares them with these definitions.
"""

from buffer_pipeline.tables.api import api_key, api_request
from buffer_pipeline.tables.audit import audit_line
from buffer_pipeline.tables.debts import clawback_share, debt
from buffer_pipeline.tables.freezes import backjob, hold_freeze, owner_freeze
from buffer_pipeline.tables.holds import hold, hold_status, job, unsettled_hold
from buffer_pipeline.tables.notifications import (
    contact,
    delivery,
    endpoint_pause,
    inbox_message,
    notification,
)
from buffer_pipeline.tables.payouts import (
    payout,
    payout_batch,
    payout_destination,
    payout_export,
    payout_ids,
    payout_schedule,
    payout_status_file,
)
from buffer_pipeline.tables.reports import alert, counted_hour, hourly_release_count
from buffer_pipeline.tables.rules import hold_rule, rule_assignment
from buffer_pipeline.tables.sandbox import sandbox
from buffer_pipeline.tables.schema import SCHEMA, metadata
from buffer_pipeline.tables.transactions import batch, seal, transaction
from buffer_pipeline.tables.wallets import currency, owner, wallet

__all__ = [
    "SCHEMA",
    "alert",
    "api_key",
    "api_request",
    "audit_line",
    "backjob",
    "batch",
    "clawback_share",
    "contact",
    "counted_hour",
    "currency",
    "debt",
    "delivery",
    "endpoint_pause",
    "hold",
    "hold_freeze",
    "hold_rule",
    "hold_status",
    "hourly_release_count",
    "inbox_message",
    "job",
    "metadata",
    "notification",
    "owner",
    "owner_freeze",
    "payout",
    "payout_batch",
    "payout_destination",
    "payout_export",
    "payout_ids",
    "payout_schedule",
    "payout_status_file",
    "rule_assignment",
    "sandbox",
    "seal",
    "transaction",
    "unsettled_hold",
    "wallet",
]
