"""A hold is written once; what still waits stands in a small table of its own until it is settled."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Each hold as it stands. Of a settled one the last line says how, when, and when it was due.
_HOLD_STATUS = """
CREATE VIEW buffer.hold_status AS
SELECT
  hold.hold_id,
  hold.reference,
  hold.job,
  hold.title,
  hold.payee_wallet_id,
  hold.payer_wallet_id,
  hold.currency,
  hold.amount_minor,
  CASE
    WHEN unsettled.hold_id IS NOT NULL THEN hold.amount_minor - unsettled.amount_minor
    WHEN settlement.type = 'EARNING' THEN hold.amount_minor - settlement.amount_minor
    WHEN settlement.type = 'REFUND' THEN hold.amount_minor
  END AS refunded_minor,
  CASE
    WHEN unsettled.hold_id IS NOT NULL THEN unsettled.state
    WHEN settlement.type = 'EARNING' THEN 'RELEASED'
    WHEN settlement.type = 'REFUND' THEN 'REFUNDED'
  END AS state,
  hold.held_at,
  hold.original_release_date,
  coalesce(unsettled.release_date, settlement.release_date) AS release_date,
  settlement.recorded_at AS settled_at
FROM buffer.hold
LEFT JOIN buffer.unsettled_hold AS unsettled ON hold.hold_id = unsettled.hold_id
LEFT JOIN LATERAL (
  SELECT transaction.type, transaction.amount_minor, transaction.release_date, transaction.recorded_at
  FROM buffer.transaction
  WHERE transaction.hold_id = hold.hold_id AND transaction.type IN ('EARNING', 'REFUND')
  ORDER BY transaction.transaction_id DESC
  LIMIT 1
) AS settlement ON unsettled.hold_id IS NULL;
"""

# As in 0001, but that what every line asks of its hold stands in one index, so that no row is read for it,
# and that it is looked up there, however small the books were when the session planned it: a trigger's plan
# is kept, and one that is made on empty books would read all of `hold` for each statement from then on.
_REFERENCES = """
CREATE OR REPLACE FUNCTION buffer.refuse_stray_transactions() RETURNS trigger
LANGUAGE plpgsql
SET random_page_cost = 1.1 SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  stray bigint;
BEGIN
  SELECT min(line.transaction_id) INTO stray
  FROM (
    -- Of a hold: its payee's wallet and its currency. Foreign keys of the hold vouch for the wallets.
    SELECT inserted.transaction_id
    FROM inserted
    LEFT JOIN buffer.hold
      ON hold.hold_id = inserted.hold_id
      AND hold.currency = inserted.currency
      AND hold.payee_wallet_id = CASE inserted.type
        WHEN 'PENDING_EARNING' THEN inserted.to_wallet_id ELSE inserted.from_wallet_id
      END
    WHERE inserted.hold_id IS NOT NULL AND hold.hold_id IS NULL
    UNION ALL
    -- Of a refund: its payer's wallet too.
    SELECT inserted.transaction_id
    FROM inserted
    WHERE inserted.type = 'REFUND' AND NOT EXISTS (
      SELECT FROM buffer.hold
      WHERE hold.hold_id = inserted.hold_id AND hold.payer_wallet_id = inserted.to_wallet_id
    )
    UNION ALL
    SELECT inserted.transaction_id
    FROM inserted
    WHERE inserted.hold_id IS NULL AND NOT EXISTS (
      SELECT FROM buffer.wallet
      WHERE wallet.wallet_id = coalesce(inserted.from_wallet_id, inserted.to_wallet_id)
        AND wallet.currency = inserted.currency
    )
    UNION ALL
    SELECT stray_batch.transaction_id
    FROM (SELECT batch_id, min(transaction_id) AS transaction_id FROM inserted GROUP BY batch_id)
      AS stray_batch
    WHERE stray_batch.batch_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM buffer.batch WHERE batch.batch_id = stray_batch.batch_id)
    UNION ALL
    SELECT stray_backjob.transaction_id
    FROM (SELECT backjob_id, min(transaction_id) AS transaction_id FROM inserted GROUP BY backjob_id)
      AS stray_backjob
    WHERE stray_backjob.backjob_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM buffer.backjob WHERE backjob.backjob_id = stray_backjob.backjob_id)
  ) AS line;
  IF stray IS NOT NULL THEN
    RAISE EXCEPTION
      'transaction %: its hold, wallet, batch or backjob does not exist or does not match it', stray
      USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'transaction_references_what_is_there';
  END IF;
  RETURN NULL;
END
$$;
"""


def upgrade() -> None:
    op.create_unique_constraint(
        "hold_payee_currency_key", "hold", ["hold_id", "payee_wallet_id", "currency"], schema="buffer"
    )
    op.create_table(
        "unsettled_hold",
        sa.Column("hold_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'BUFFERED'"), nullable=False),
        sa.Column("payee_wallet_id", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("release_date", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "release_hour",
            sa.DateTime(timezone=True),
            sa.Computed(
                "date_bin('1 hour', release_date, timestamptz '2000-01-01 00:00:00+00')", persisted=True
            ),
            nullable=False,
        ),
        sa.CheckConstraint("state IN ('BUFFERED', 'FROZEN')", name="unsettled_hold_state_is_known"),
        sa.CheckConstraint("amount_minor > 0", name="unsettled_hold_holds_something"),
        sa.PrimaryKeyConstraint("hold_id"),
        schema="buffer",
    )
    op.execute(
        "INSERT INTO buffer.unsettled_hold (hold_id, state, payee_wallet_id, currency, amount_minor, release_date)"
        " SELECT hold_id, state, payee_wallet_id, currency, amount_minor - refunded_minor, release_date"
        " FROM buffer.hold WHERE state IN ('BUFFERED', 'FROZEN') ORDER BY hold_id"
    )
    op.create_index(
        "unsettled_hold_due_idx",
        "unsettled_hold",
        ["release_hour", "payee_wallet_id", "hold_id"],
        schema="buffer",
        postgresql_where=sa.text("state = 'BUFFERED'"),
    )
    op.create_foreign_key(
        "unsettled_hold_hold_fkey",
        "unsettled_hold",
        "hold",
        ["hold_id", "payee_wallet_id", "currency"],
        ["hold_id", "payee_wallet_id", "currency"],
        source_schema="buffer",
        referent_schema="buffer",
    )
    op.add_column(
        "transaction", sa.Column("release_date", sa.DateTime(timezone=True), nullable=True), schema="buffer"
    )
    # The one rewriting of transactions there is: a column that was not there is filled in. By a new type for
    # it rather than by an UPDATE: in their order, so that the block-range index stays narrow, and without
    # dead rows.
    op.execute(
        "CREATE FUNCTION buffer.settled_release_date(hold_id bigint, type text) RETURNS timestamptz"
        " LANGUAGE sql STABLE AS"
        " 'SELECT hold.release_date FROM buffer.hold WHERE hold.hold_id = $1 AND $2 IN (''EARNING'', ''REFUND'')'"
    )
    op.execute(
        "ALTER TABLE buffer.transaction ALTER COLUMN release_date TYPE timestamptz"
        " USING buffer.settled_release_date(hold_id, type)"
    )
    op.execute("DROP FUNCTION buffer.settled_release_date(bigint, text)")
    op.create_check_constraint(
        "transaction_release_date_iff_it_settles",
        "transaction",
        "(type IN ('EARNING', 'REFUND')) = (release_date IS NOT NULL)",
        schema="buffer",
    )
    op.execute(
        "REVOKE UPDATE (state, release_date, refunded_minor, settled_at) ON buffer.hold FROM CURRENT_USER"
    )
    op.drop_index("hold_due_idx", "hold", schema="buffer")
    for name in (
        "hold_state_is_known",
        "hold_refunded_within_amount",
        "hold_refunded_iff_nothing_is_left",
        "hold_settled_at_iff_final",
        "hold_dates_in_order",
    ):
        op.drop_constraint(name, "hold", schema="buffer")
    for name in ("release_hour", "state", "refunded_minor", "release_date", "settled_at"):
        op.drop_column("hold", name, schema="buffer")
    op.create_check_constraint(
        "hold_released_after_it_was_held", "hold", "held_at <= original_release_date", schema="buffer"
    )
    # Foreign keys lock what they refer to, for which PostgreSQL asks for the right to update some column:
    # this one is the database's own to write, and the trigger below refuses even that.
    op.execute("GRANT UPDATE (hold_id) ON buffer.hold TO CURRENT_USER")
    op.execute("DROP TRIGGER hold_is_kept ON buffer.hold")
    op.execute(
        "CREATE TRIGGER hold_is_written_once BEFORE UPDATE OR DELETE OR TRUNCATE ON buffer.hold"
        " FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_rewriting()"
    )
    op.execute(
        "CREATE TRIGGER unsettled_hold_is_kept BEFORE TRUNCATE ON buffer.unsettled_hold"
        " FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_rewriting()"
    )
    op.execute("REVOKE UPDATE, TRUNCATE ON buffer.unsettled_hold FROM CURRENT_USER")
    op.execute("GRANT UPDATE (state, amount_minor, release_date) ON buffer.unsettled_hold TO CURRENT_USER")
    op.execute(_HOLD_STATUS)
    op.execute(_REFERENCES)


def downgrade() -> None:
    op.add_column(
        "hold",
        sa.Column("refunded_minor", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        schema="buffer",
    )
    op.add_column(
        "hold",
        sa.Column("state", sa.Text(), nullable=False, server_default=sa.text("'BUFFERED'")),
        schema="buffer",
    )
    for name in ("release_date", "settled_at"):
        op.add_column("hold", sa.Column(name, sa.DateTime(timezone=True), nullable=True), schema="buffer")
    op.execute("DROP TRIGGER hold_is_written_once ON buffer.hold")
    op.execute("REVOKE UPDATE (hold_id) ON buffer.hold FROM CURRENT_USER")
    op.execute(
        "GRANT UPDATE (state, release_date, refunded_minor, settled_at) ON buffer.hold TO CURRENT_USER"
    )
    op.execute(
        "UPDATE buffer.hold SET state = status.state, refunded_minor = status.refunded_minor,"
        " release_date = status.release_date, settled_at = status.settled_at"
        " FROM buffer.hold_status AS status WHERE status.hold_id = hold.hold_id"
    )
    op.execute("DROP VIEW buffer.hold_status")
    op.drop_constraint("hold_released_after_it_was_held", "hold", schema="buffer")
    op.alter_column("hold", "release_date", nullable=False, schema="buffer")
    op.add_column(
        "hold",
        sa.Column(
            "release_hour",
            sa.DateTime(timezone=True),
            sa.Computed(
                "date_bin('1 hour', release_date, timestamptz '2000-01-01 00:00:00+00')", persisted=True
            ),
            nullable=False,
        ),
        schema="buffer",
    )
    for name, condition in (
        ("hold_state_is_known", "state IN ('BUFFERED', 'FROZEN', 'RELEASED', 'REFUNDED')"),
        ("hold_refunded_within_amount", "refunded_minor BETWEEN 0 AND amount_minor"),
        ("hold_refunded_iff_nothing_is_left", "(state = 'REFUNDED') = (refunded_minor = amount_minor)"),
        ("hold_settled_at_iff_final", "(state IN ('RELEASED', 'REFUNDED')) = (settled_at IS NOT NULL)"),
        (
            "hold_dates_in_order",
            "held_at <= original_release_date AND original_release_date <= release_date",
        ),
    ):
        op.create_check_constraint(name, "hold", condition, schema="buffer")
    op.create_index(
        "hold_due_idx",
        "hold",
        ["release_hour", "payee_wallet_id", "hold_id"],
        schema="buffer",
        postgresql_where=sa.text("state = 'BUFFERED'"),
    )
    op.execute(
        "CREATE TRIGGER hold_is_kept BEFORE DELETE OR TRUNCATE ON buffer.hold"
        " FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_rewriting()"
    )
    op.drop_constraint("transaction_release_date_iff_it_settles", "transaction", schema="buffer")
    op.drop_column("transaction", "release_date", schema="buffer")
    op.drop_table("unsettled_hold", schema="buffer")
    op.drop_constraint("hold_payee_currency_key", "hold", schema="buffer")
