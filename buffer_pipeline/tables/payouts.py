"""Payouts, the batches that send them, and the destinations that they go to."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from buffer_pipeline.tables.schema import SCHEMA, metadata, time_column
from buffer_pipeline.tables.wallets import currency

# Where an owner is paid: the row with the largest version counts. Only the role `buffer_payouts` reads the
# account; everybody else sees `masked`.
payout_destination = Table(
    "payout_destination",
    metadata,
    Column("destination_id", BigInteger, Identity(always=True), primary_key=True),
    Column("owner", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("method", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("masked", Text, nullable=False),
    # Whose account it is, for the bank. Personal data, so it is in no list, log or message.
    Column("holder_name", Text, nullable=True),
    Column("set_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    time_column("set_at"),
    UniqueConstraint("owner", "version", name="payout_destination_version_key"),
    CheckConstraint("length(owner) BETWEEN 1 AND 200", name="payout_destination_owner_length"),
    CheckConstraint("version > 0", name="payout_destination_version_is_positive"),
    CheckConstraint("method IN ('IBAN', 'TOKEN')", name="payout_destination_method_is_known"),
    CheckConstraint("length(account) BETWEEN 1 AND 200", name="payout_destination_account_length"),
    CheckConstraint(
        "method <> 'IBAN' OR account ~ '^[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}$'",
        name="payout_destination_iban_has_its_form",
    ),
    CheckConstraint(
        "masked <> '' AND length(masked) <= 10 AND masked <> account",
        name="payout_destination_masked_hides_the_account",
    ),
    CheckConstraint(
        "method <> 'IBAN' OR holder_name IS NOT NULL", name="payout_destination_iban_names_its_holder"
    ),
    CheckConstraint("length(holder_name) BETWEEN 1 AND 140", name="payout_destination_holder_name_length"),
    CheckConstraint("set_by <> '' AND reason <> ''", name="payout_destination_says_who_and_why"),
)

# For the audit trail, as the other indexes on a time, or on a person and a time.
Index("payout_destination_set_at_idx", payout_destination.c.set_at)
Index("payout_destination_set_by_idx", payout_destination.c.set_by, payout_destination.c.set_at)

# When an owner's balance is paid out by itself: the row with the largest number counts, and none is MANUAL.
payout_schedule = Table(
    "payout_schedule",
    metadata,
    Column("owner", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("schedule", Text, nullable=False),
    Column("set_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    time_column("set_at"),
    PrimaryKeyConstraint("owner", "number", name="payout_schedule_pkey"),
    CheckConstraint("length(owner) BETWEEN 1 AND 200", name="payout_schedule_owner_length"),
    CheckConstraint("number > 0", name="payout_schedule_number_is_positive"),
    CheckConstraint("schedule IN ('MANUAL', 'DAILY', 'WEEKLY', 'MONTHLY')", name="payout_schedule_is_known"),
    CheckConstraint("set_by <> '' AND reason <> ''", name="payout_schedule_says_who_and_why"),
)

Index("payout_schedule_set_at_idx", payout_schedule.c.set_at)
Index("payout_schedule_set_by_idx", payout_schedule.c.set_by, payout_schedule.c.set_at)

# One row: the number of these books, which is part of all ids in files for a bank.
payout_ids = Table(
    "payout_ids",
    metadata,
    Column("books_number", BigInteger, primary_key=True, autoincrement=False),
    CheckConstraint(
        "books_number BETWEEN 10000000 AND 99999999", name="payout_ids_books_number_has_eight_digits"
    ),
)

# `payouts` and `amount_minor` are those that are in the batch. A cancelled batch keeps what it had.
payout_batch = Table(
    "payout_batch",
    metadata,
    Column("payout_batch_id", BigInteger, Identity(always=True), primary_key=True),
    Column(
        "currency", Text, ForeignKey(currency.c.currency, name="payout_batch_currency_fkey"), nullable=False
    ),
    Column("method", Text, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'MADE'")),
    Column("payouts", BigInteger, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    # Whether somebody else than its maker has to approve it; decided when it is made.
    Column("four_eyes", Boolean, nullable=False),
    Column("made_by", Text, nullable=False),
    time_column("made_at"),
    Column("approved_by", Text, nullable=True),
    time_column("approved_at", nullable=True),
    Column("sent_by", Text, nullable=True),
    time_column("sent_at", nullable=True),
    Column("cancelled_by", Text, nullable=True),
    Column("cancellation_reason", Text, nullable=True),
    time_column("cancelled_at", nullable=True),
    UniqueConstraint("payout_batch_id", "currency", name="payout_batch_currency_key"),
    CheckConstraint("method IN ('IBAN', 'TOKEN')", name="payout_batch_method_is_known"),
    CheckConstraint("state IN ('MADE', 'APPROVED', 'SENT', 'CANCELLED')", name="payout_batch_state_is_known"),
    CheckConstraint("payouts > 0 AND amount_minor >= payouts", name="payout_batch_has_payouts"),
    CheckConstraint(
        "(approved_at IS NULL) = (approved_by IS NULL)", name="payout_batch_approved_whole_or_not_at_all"
    ),
    # A cancelled one may have been approved before.
    CheckConstraint(
        "(state <> 'MADE' OR approved_at IS NULL)"
        " AND (state NOT IN ('APPROVED', 'SENT') OR approved_at IS NOT NULL)",
        name="payout_batch_approved_iff_past_it",
    ),
    CheckConstraint(
        "(state = 'SENT') = (sent_at IS NOT NULL) AND (sent_at IS NULL) = (sent_by IS NULL)",
        name="payout_batch_sent_iff_sent",
    ),
    CheckConstraint(
        "(state = 'CANCELLED') = (cancelled_at IS NOT NULL)"
        " AND (cancelled_at IS NULL) = (cancelled_by IS NULL)"
        " AND (cancelled_at IS NULL) = (cancellation_reason IS NULL)",
        name="payout_batch_cancelled_iff_cancelled",
    ),
    CheckConstraint("NOT four_eyes OR approved_by <> made_by", name="payout_batch_approved_by_somebody_else"),
    CheckConstraint(
        "made_by <> '' AND approved_by <> '' AND sent_by <> '' AND cancelled_by <> ''"
        " AND cancellation_reason <> ''",
        name="payout_batch_says_who_and_why",
    ),
)
Index("payout_batch_made_at_idx", payout_batch.c.made_at)
# For the sensor of batches that nobody approves or sends.
Index(
    "payout_batch_open_idx",
    payout_batch.c.made_at,
    postgresql_where=text("state IN ('MADE', 'APPROVED')"),
)

payout = Table(
    "payout",
    metadata,
    Column("payout_id", BigInteger, Identity(always=True), primary_key=True),
    Column("wallet_id", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    # Whether all of the balance was asked for, which a call with the same reference must repeat.
    Column("whole_balance", Boolean, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'REQUESTED'")),
    Column("reference", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    time_column("requested_at"),
    # Why an admin lets it pass the checks that an override passes.
    Column("override_reason", Text, nullable=True),
    Column("payout_batch_id", BigInteger, nullable=True),
    Column(
        "destination_id",
        BigInteger,
        ForeignKey(payout_destination.c.destination_id, name="payout_destination_fkey"),
        nullable=True,
    ),
    time_column("sent_at", nullable=True),
    # A payout that was paid and came back has both of these.
    time_column("paid_at", nullable=True),
    time_column("returned_at", nullable=True),
    Column("return_reason", Text, nullable=True),
    Column("cancelled_by", Text, nullable=True),
    Column("cancellation_reason", Text, nullable=True),
    time_column("cancelled_at", nullable=True),
    UniqueConstraint("reference", name="payout_reference_key"),
    ForeignKeyConstraint(
        ["wallet_id", "currency"],
        [f"{SCHEMA}.wallet.wallet_id", f"{SCHEMA}.wallet.currency"],
        name="payout_wallet_fkey",
    ),
    ForeignKeyConstraint(
        ["payout_batch_id", "currency"],
        [f"{SCHEMA}.payout_batch.payout_batch_id", f"{SCHEMA}.payout_batch.currency"],
        name="payout_batch_fkey",
    ),
    CheckConstraint("amount_minor BETWEEN 1 AND 1000000000000000", name="payout_amount_in_range"),
    CheckConstraint("length(reference) BETWEEN 1 AND 200", name="payout_reference_length"),
    CheckConstraint(
        "state IN ('REQUESTED', 'BATCHED', 'SENT', 'PAID', 'RETURNED', 'CANCELLED')",
        name="payout_state_is_known",
    ),
    CheckConstraint(
        "(state IN ('BATCHED', 'SENT', 'PAID', 'RETURNED')) = (payout_batch_id IS NOT NULL)"
        " AND (payout_batch_id IS NULL) = (destination_id IS NULL)",
        name="payout_batch_and_destination_iff_batched",
    ),
    CheckConstraint(
        "(state IN ('SENT', 'PAID', 'RETURNED')) = (sent_at IS NOT NULL)", name="payout_sent_at_iff_sent"
    ),
    CheckConstraint(
        "(state <> 'PAID' OR paid_at IS NOT NULL) AND (paid_at IS NULL OR state IN ('PAID', 'RETURNED'))",
        name="payout_paid_at_iff_paid",
    ),
    CheckConstraint(
        "(state = 'RETURNED') = (returned_at IS NOT NULL)"
        " AND (returned_at IS NULL) = (return_reason IS NULL)",
        name="payout_returned_iff_returned",
    ),
    CheckConstraint("length(return_reason) BETWEEN 1 AND 500", name="payout_return_reason_length"),
    CheckConstraint(
        "(state = 'CANCELLED') = (cancelled_at IS NOT NULL)"
        " AND (cancelled_at IS NULL) = (cancelled_by IS NULL)"
        " AND (cancelled_at IS NULL) = (cancellation_reason IS NULL)",
        name="payout_cancelled_iff_cancelled",
    ),
    CheckConstraint(
        "requested_by <> '' AND override_reason <> '' AND cancelled_by <> '' AND cancellation_reason <> ''",
        name="payout_says_who_and_why",
    ),
)
Index("payout_wallet_idx", payout.c.wallet_id, payout.c.payout_id)
Index(
    "payout_batch_idx",
    payout.c.payout_batch_id,
    payout.c.payout_id,
    postgresql_where=text("payout_batch_id IS NOT NULL"),
)
# What the next batch takes.
Index(
    "payout_requested_idx",
    payout.c.currency,
    payout.c.payout_id,
    postgresql_where=text("state = 'REQUESTED'"),
)
Index("payout_requested_at_idx", payout.c.requested_at)
Index("payout_requested_by_idx", payout.c.requested_by, payout.c.requested_at)
Index("payout_cancelled_at_idx", payout.c.cancelled_at, postgresql_where=text("cancelled_at IS NOT NULL"))
Index(
    "payout_cancelled_by_idx",
    payout.c.cancelled_by,
    payout.c.cancelled_at,
    postgresql_where=text("cancelled_at IS NOT NULL"),
)
# For the sensor of payouts that no status came for.
Index("payout_sent_idx", payout.c.sent_at, postgresql_where=text("state = 'SENT'"))

# A bank's status files that were imported, by the SHA-256 of their bytes: none is imported twice for a batch.
payout_status_file = Table(
    "payout_status_file",
    metadata,
    Column(
        "payout_batch_id",
        BigInteger,
        ForeignKey(payout_batch.c.payout_batch_id, name="payout_status_file_batch_fkey"),
        nullable=False,
    ),
    Column("digest", LargeBinary, nullable=False),
    Column("imported_by", Text, nullable=False),
    time_column("imported_at"),
    Column("paid", BigInteger, nullable=False),
    Column("returned", BigInteger, nullable=False),
    # The end-to-end ids of what the file did not mark: lines that are no payout of the batch, those whose
    # amount or currency is not the payout's, and those that contradict what became of it.
    Column("unknown", ARRAY(Text), nullable=False),
    Column("differing", ARRAY(Text), nullable=False),
    Column("conflicting", ARRAY(Text), nullable=False),
    PrimaryKeyConstraint("payout_batch_id", "digest", name="payout_status_file_pkey"),
    CheckConstraint("length(digest) = 32", name="payout_status_file_digest_length"),
    CheckConstraint("imported_by <> ''", name="payout_status_file_says_who"),
    CheckConstraint("least(paid, returned) >= 0", name="payout_status_file_counts_not_negative"),
)

# The files that were written for a batch, by the SHA-256 of their bytes. A bank must get only one of them.
payout_export = Table(
    "payout_export",
    metadata,
    Column(
        "payout_batch_id",
        BigInteger,
        ForeignKey(payout_batch.c.payout_batch_id, name="payout_export_batch_fkey"),
        nullable=False,
    ),
    Column("number", BigInteger, nullable=False),
    Column("format", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("exported_by", Text, nullable=False),
    time_column("exported_at"),
    PrimaryKeyConstraint("payout_batch_id", "number", name="payout_export_pkey"),
    CheckConstraint("number > 0", name="payout_export_number_is_positive"),
    CheckConstraint("length(format) BETWEEN 1 AND 100", name="payout_export_format_length"),
    CheckConstraint("length(digest) = 32", name="payout_export_digest_length"),
    CheckConstraint("exported_by <> ''", name="payout_export_says_who"),
)
