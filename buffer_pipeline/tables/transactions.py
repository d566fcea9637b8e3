"""Transactions, the batches that wrote them, and the seals over them."""

from typing import Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from buffer_pipeline.tables.holds import hold
from buffer_pipeline.tables.schema import metadata, time_column
from buffer_pipeline.tables.wallets import wallet

batch = Table(
    "batch",
    metadata,
    Column("batch_id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("reason", Text, nullable=True),
    time_column("due_by", nullable=True),
    time_column("recorded_at"),
    # Of a refund of an earning with shares, by the id of its own hold: that id, and what it left in them.
    # An early release of a part has what it left too.
    Column("earning_id", BigInteger, ForeignKey(hold.c.hold_id, name="batch_earning_fkey"), nullable=True),
    Column("left_minor", BigInteger, nullable=True),
    # Of an early release: its idempotency key, and the hold that it named if it named no job. Of a claw-back
    # both; of a recovery and of forgiving a debt the key, if the caller gave one.
    Column("reference", Text, nullable=True),
    Column(
        "named_hold_id", BigInteger, ForeignKey(hold.c.hold_id, name="batch_named_hold_fkey"), nullable=True
    ),
    # Of a claw-back: who gets the money, and the wallet that pays now what the payee's balance does not
    # cover.
    Column("paid_to", Text, nullable=True),
    Column(
        "advancer_wallet_id",
        BigInteger,
        ForeignKey(wallet.c.wallet_id, name="batch_advancer_wallet_fkey"),
        nullable=True,
    ),
    # REFUND is an admin's refund of one frozen hold, or of all unsettled shares of an earning. RECOVERY is a
    # recovery of debts that was asked for; one by a release is in the batch of the release.
    CheckConstraint(
        "kind IN ('DUE', 'EARLY', 'REFUND', 'CLAWBACK', 'RECOVERY', 'FORGIVEN')", name="batch_kind_is_known"
    ),
    CheckConstraint(
        "(kind = 'CLAWBACK') = (paid_to IS NOT NULL) AND paid_to IN ('PAYER', 'BANK')",
        name="batch_paid_to_iff_claw_back",
    ),
    CheckConstraint(
        "kind = 'CLAWBACK' OR advancer_wallet_id IS NULL", name="batch_advancer_only_of_claw_back"
    ),
    CheckConstraint(
        "(kind = 'DUE') = (reason IS NULL) AND (kind = 'DUE') = (due_by IS NOT NULL)",
        name="batch_is_due_or_has_a_reason",
    ),
    CheckConstraint("due_by <= recorded_at", name="batch_recorded_when_due"),
    CheckConstraint("source <> '' AND reason <> ''", name="batch_says_who_and_why"),
    CheckConstraint("earning_id IS NULL OR kind = 'REFUND'", name="batch_earning_only_of_refund"),
    CheckConstraint(
        "kind = 'EARLY' OR (earning_id IS NOT NULL) = (left_minor IS NOT NULL)",
        name="batch_left_iff_of_an_earning_or_early",
    ),
    CheckConstraint(
        "left_minor >= 0 AND (kind <> 'EARLY' OR left_minor > 0)", name="batch_left_not_negative"
    ),
    CheckConstraint(
        "kind = 'EARLY' OR ((kind = 'CLAWBACK') = (named_hold_id IS NOT NULL)"
        " AND (kind IN ('RECOVERY', 'FORGIVEN') OR (kind = 'CLAWBACK') = (reference IS NOT NULL)))",
        name="batch_reference_only_of_a_decision",
    ),
    CheckConstraint("length(reference) BETWEEN 1 AND 200", name="batch_reference_length"),
)
Index(
    "batch_reference_key",
    batch.c.reference,
    unique=True,
    postgresql_where=text("reference IS NOT NULL"),
)

# For the audit trail, which lists the newest first, of all or of one person. It has no scheduled batches.
Index("batch_decided_idx", batch.c.recorded_at, postgresql_where=text("kind <> 'DUE'"))
Index(
    "batch_decided_by_idx",
    batch.c.source,
    batch.c.recorded_at,
    postgresql_where=text("kind <> 'DUE'"),
)

# Which accounts and columns each type of transaction has. An EARNING is told apart first: a release writes
# nothing else, and a comparison of texts costs something for every row. NULL is not TRUE, so what is compared
# is there. Of the refunds of an earning's shares, the first one has the reference.
_COLUMNS_OF_TYPES: Final = """(CASE
WHEN type = 'EARNING' THEN
  from_account = 'PENDING_EARNINGS' AND to_account = 'BALANCE' AND from_wallet_id = to_wallet_id
  AND balance_after_minor >= 0
  AND hold_id IS NOT NULL AND batch_id IS NOT NULL AND release_date IS NOT NULL
  AND backjob_id IS NULL AND reference IS NULL
  AND from_balance_after_minor IS NULL AND debt_id IS NULL AND payout_id IS NULL
ELSE
  (type, from_account, to_account) IN (
    ('PENDING_EARNING', 'ESCROW', 'PENDING_EARNINGS'),
    ('EARNING_PART', 'PENDING_EARNINGS', 'BALANCE'),
    ('REFUND', 'PENDING_EARNINGS', 'BALANCE'),
    ('DEPOSIT', 'EXTERNAL', 'BALANCE'),
    ('WITHDRAWAL', 'BALANCE', 'EXTERNAL'),
    ('OPENING_BALANCE', 'OPENING', 'BALANCE'),
    ('CLAWBACK', 'BALANCE', 'BALANCE'),
    ('CLAWBACK', 'BALANCE', 'EXTERNAL'),
    ('ADVANCE', 'BALANCE', 'BALANCE'),
    ('ADVANCE', 'BALANCE', 'EXTERNAL'),
    ('ADVANCE', 'RECEIVABLE', 'EXTERNAL'),
    ('RECOVERY', 'BALANCE', 'BALANCE'),
    ('RECOVERY', 'BALANCE', 'RECEIVABLE'),
    ('WRITE_OFF', 'LOSS', 'BALANCE'),
    ('WRITE_OFF', 'LOSS', 'RECEIVABLE'),
    ('PAYOUT', 'BALANCE', 'TRANSIT'),
    ('PAYOUT_PAID', 'TRANSIT', 'EXTERNAL'),
    ('PAYOUT_RETURNED', 'TRANSIT', 'BALANCE'),
    ('PAYOUT_RETURNED', 'EXTERNAL', 'BALANCE'),
    ('PAYOUT_CANCELLED', 'TRANSIT', 'BALANCE')
  )
  AND (from_account IN ('BALANCE', 'PENDING_EARNINGS')) = (from_wallet_id IS NOT NULL)
  AND (to_account IN ('BALANCE', 'PENDING_EARNINGS')) = (to_wallet_id IS NOT NULL)
  AND (type <> 'EARNING_PART' OR from_wallet_id = to_wallet_id)
  AND CASE
    WHEN 'BALANCE' IN (from_account, to_account) THEN balance_after_minor >= 0
    ELSE balance_after_minor IS NULL
  END
  AND CASE
    WHEN from_account = 'BALANCE' AND to_account = 'BALANCE'
      THEN from_wallet_id <> to_wallet_id AND from_balance_after_minor >= 0
    ELSE from_balance_after_minor IS NULL
  END
  AND (type IN ('PENDING_EARNING', 'EARNING_PART', 'REFUND', 'CLAWBACK', 'ADVANCE')) = (hold_id IS NOT NULL)
  AND (
    type IN ('EARNING_PART', 'CLAWBACK', 'ADVANCE', 'RECOVERY', 'WRITE_OFF')
    OR (type = 'REFUND' AND backjob_id IS NULL)
  ) = (batch_id IS NOT NULL)
  AND (type = 'REFUND' OR backjob_id IS NULL)
  AND (
    (type IN ('DEPOSIT', 'WITHDRAWAL', 'OPENING_BALANCE')) = (reference IS NOT NULL)
    OR (type = 'REFUND' AND backjob_id IS NULL)
  )
  AND (type IN ('EARNING_PART', 'REFUND')) = (release_date IS NOT NULL)
  AND (type IN ('ADVANCE', 'RECOVERY', 'WRITE_OFF')) = (debt_id IS NOT NULL)
  AND (type IN ('PAYOUT', 'PAYOUT_PAID', 'PAYOUT_RETURNED', 'PAYOUT_CANCELLED')) = (payout_id IS NOT NULL)
END) IS TRUE"""

# A trigger (migration 0001) checks the references to wallets, holds, backjobs and batches once per statement.
# Foreign keys would check them row by row: see docs/decisions/0003-references-checked-per-statement.md.
transaction = Table(
    "transaction",
    metadata,
    Column("transaction_id", BigInteger, Identity(always=True), primary_key=True),
    Column("type", Text, nullable=False),
    Column("from_account", Text, nullable=False),
    Column("from_wallet_id", BigInteger, nullable=True),
    Column("to_account", Text, nullable=False),
    Column("to_wallet_id", BigInteger, nullable=True),
    Column("currency", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("balance_after_minor", BigInteger, nullable=True),
    Column("hold_id", BigInteger, nullable=True),
    Column("backjob_id", BigInteger, nullable=True),
    Column("batch_id", BigInteger, nullable=True),
    Column("reference", Text, nullable=True),
    time_column("recorded_at"),
    # The release date of the hold at that time: a settled hold has no row in `unsettled_hold` any more.
    time_column("release_date", nullable=True),
    # Of a movement between two balances: that of the wallet that it leaves. `balance_after_minor` is then
    # that of the wallet that it enters.
    Column("from_balance_after_minor", BigInteger, nullable=True),
    Column("debt_id", BigInteger, nullable=True),
    Column("payout_id", BigInteger, nullable=True),
    CheckConstraint("amount_minor BETWEEN 1 AND 1000000000000000", name="transaction_amount_in_range"),
    CheckConstraint(
        _COLUMNS_OF_TYPES,
        name="transaction_columns_fit_its_type",
    ),
)
# A hold is settled once: it has one EARNING, one REFUND for each backjob or admin's refund, and one
# EARNING_PART for each early release of a part of it. EARNING rows, which every release writes, have a narrow
# index of their own: see docs/decisions/0018.
Index(
    "transaction_hold_earned_key",
    transaction.c.hold_id,
    unique=True,
    postgresql_where=text("type = 'EARNING'"),
)
Index(
    "transaction_hold_line_key",
    transaction.c.hold_id,
    transaction.c.type,
    transaction.c.backjob_id,
    transaction.c.batch_id,
    unique=True,
    postgresql_nulls_not_distinct=True,
    postgresql_where=text("hold_id IS NOT NULL AND type <> 'EARNING'"),
)
Index(
    "transaction_reference_key",
    transaction.c.reference,
    unique=True,
    postgresql_where=text("reference IS NOT NULL"),
)
# A generation is 131,072 transactions. New entries are on the few pages of the newest generation, however
# long the history is. A query for a wallet's transactions searches each generation: see docs/decisions/0019.
Index(
    "transaction_generation_to_wallet_idx",
    text("(transaction_id >> 17)"),
    transaction.c.to_wallet_id,
    transaction.c.transaction_id,
)
Index(
    "transaction_from_wallet_idx",
    transaction.c.from_wallet_id,
    transaction.c.transaction_id,
    postgresql_where=text("from_wallet_id IS DISTINCT FROM to_wallet_id"),
)
# A debt is paid or forgiven once in a batch, and a payout has one line of each type. One index for both: each
# partial index costs something for every row, also for those that are not in it.
Index(
    "transaction_debt_or_payout_line_key",
    transaction.c.debt_id,
    transaction.c.payout_id,
    transaction.c.type,
    transaction.c.batch_id,
    unique=True,
    postgresql_nulls_not_distinct=True,
    postgresql_where=text("debt_id IS NOT NULL OR payout_id IS NOT NULL"),
)
# For the audit trail: the newest deposits and withdrawals, which are few among the transactions.
Index(
    "transaction_moved_idx",
    transaction.c.recorded_at,
    postgresql_where=text("type IN ('DEPOSIT', 'WITHDRAWAL')"),
)

# Both columns grow with the table, so a block-range index finds rows by them and costs almost nothing per
# row.
Index(
    "transaction_recorded_brin",
    transaction.c.recorded_at,
    transaction.c.batch_id,
    postgresql_using="brin",
)

# One link of the chain of digests over the transactions: see docs/decisions/0020.
seal = Table(
    "seal",
    metadata,
    Column("seal_id", BigInteger, primary_key=True, autoincrement=False),
    Column("first_id", BigInteger, nullable=False),
    Column("through_id", BigInteger, nullable=False),
    Column("lines", BigInteger, nullable=False),
    Column("transaction_ids", ARRAY(BigInteger), nullable=True, doc="where some between are missing"),
    Column("line_digests", LargeBinary, nullable=False, doc="16 bytes of each line's SHA-256, by id"),
    Column("digest", LargeBinary, nullable=False, doc="SHA-256 over the link before and all of this one"),
    time_column("sealed_at"),
    UniqueConstraint("first_id", name="seal_first_id_key"),
    CheckConstraint("seal_id BETWEEN 1 AND 4611686018427387904", name="seal_counts_from_one"),
    CheckConstraint("lines > 0 AND through_id >= first_id", name="seal_has_lines"),
    CheckConstraint(
        "(through_id - first_id + 1 = lines) = (transaction_ids IS NULL)"
        " AND cardinality(transaction_ids) = lines",
        name="seal_names_its_lines_iff_some_between_are_missing",
    ),
    CheckConstraint("length(line_digests) = 16 * lines", name="seal_has_a_digest_of_each_line"),
    CheckConstraint("length(digest) = 32", name="seal_digest_length"),
)
