"""What claw-backs took of each hold, and the debts that they left."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from buffer_pipeline.tables.holds import hold
from buffer_pipeline.tables.schema import SCHEMA, metadata, time_column

# What a claw-back took of a hold: from the balance, or as a debt. Its id is that of its batch, which says who
# and why. It has no foreign key to the batch: see docs/decisions/0003.
clawback_share = Table(
    "clawback_share",
    metadata,
    Column("clawback_id", BigInteger, nullable=False),
    Column(
        "hold_id", BigInteger, ForeignKey(hold.c.hold_id, name="clawback_share_hold_fkey"), nullable=False
    ),
    Column("amount_minor", BigInteger, nullable=False),
    # The hold first: a claw-back asks what earlier ones have taken of it.
    PrimaryKeyConstraint("hold_id", "clawback_id", name="clawback_share_pkey"),
    CheckConstraint("amount_minor BETWEEN 1 AND 1000000000000000", name="clawback_share_amount_in_range"),
)
Index("clawback_share_clawback_idx", clawback_share.c.clawback_id)

# What a payee's balance did not cover. The creditor is a wallet; or NULL, the bank, which has taken the money
# already: it is booked to the account RECEIVABLE.
debt = Table(
    "debt",
    metadata,
    Column("debt_id", BigInteger, Identity(always=True), primary_key=True),
    Column("clawback_id", BigInteger, nullable=False),
    Column("hold_id", BigInteger, nullable=False),
    Column("wallet_id", BigInteger, nullable=False),
    Column("creditor_wallet_id", BigInteger, nullable=True),
    Column("currency", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("outstanding_minor", BigInteger, nullable=False),
    time_column("opened_at"),
    time_column("closed_at", nullable=True),
    # The batch in which an admin has written off what was outstanding.
    Column("forgiven_id", BigInteger, nullable=True),
    UniqueConstraint("clawback_id", "hold_id", name="debt_clawback_hold_key"),
    ForeignKeyConstraint(
        ["wallet_id", "currency"],
        [f"{SCHEMA}.wallet.wallet_id", f"{SCHEMA}.wallet.currency"],
        name="debt_wallet_fkey",
    ),
    ForeignKeyConstraint(
        ["creditor_wallet_id", "currency"],
        [f"{SCHEMA}.wallet.wallet_id", f"{SCHEMA}.wallet.currency"],
        name="debt_creditor_wallet_fkey",
    ),
    # The debtor is the payee of the hold.
    ForeignKeyConstraint(
        ["hold_id", "wallet_id", "currency"],
        [f"{SCHEMA}.hold.hold_id", f"{SCHEMA}.hold.payee_wallet_id", f"{SCHEMA}.hold.currency"],
        name="debt_of_a_hold_fkey",
    ),
    CheckConstraint("wallet_id <> creditor_wallet_id", name="debt_is_to_somebody_else"),
    CheckConstraint("amount_minor BETWEEN 1 AND 1000000000000000", name="debt_amount_in_range"),
    CheckConstraint("outstanding_minor BETWEEN 0 AND amount_minor", name="debt_outstanding_in_range"),
    CheckConstraint(
        "(outstanding_minor = 0) = (closed_at IS NOT NULL)", name="debt_closed_iff_nothing_is_outstanding"
    ),
    CheckConstraint("opened_at <= closed_at", name="debt_closed_after_opening"),
    CheckConstraint("closed_at IS NOT NULL OR forgiven_id IS NULL", name="debt_forgiven_only_if_closed"),
)
# The open debts of a wallet, the oldest first.
Index(
    "debt_open_idx",
    debt.c.wallet_id,
    debt.c.opened_at,
    debt.c.debt_id,
    postgresql_where=text("outstanding_minor > 0"),
)
Index("debt_wallet_idx", debt.c.wallet_id)
# For the audit trail of a hold.
Index("debt_hold_idx", debt.c.hold_id)
