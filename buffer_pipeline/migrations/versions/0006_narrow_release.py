"""That a hold is earned once stands in an index of its own, and a statement's references are read in one pass."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# A hold that was earned has one EARNING; only one that was not can have a REFUND for its last line.
_HOLD_STATUS = """
CREATE OR REPLACE VIEW buffer.hold_status AS
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
    WHEN earning.hold_id IS NOT NULL THEN hold.amount_minor - earning.amount_minor
    WHEN refund.hold_id IS NOT NULL THEN hold.amount_minor
  END AS refunded_minor,
  CASE
    WHEN unsettled.hold_id IS NOT NULL THEN unsettled.state
    WHEN earning.hold_id IS NOT NULL THEN 'RELEASED'
    WHEN refund.hold_id IS NOT NULL THEN 'REFUNDED'
  END AS state,
  hold.held_at,
  hold.original_release_date,
  coalesce(unsettled.release_date, earning.release_date, refund.release_date) AS release_date,
  coalesce(earning.recorded_at, refund.recorded_at) AS settled_at
FROM buffer.hold
LEFT JOIN buffer.unsettled_hold AS unsettled ON hold.hold_id = unsettled.hold_id
LEFT JOIN LATERAL (
  SELECT transaction.hold_id, transaction.amount_minor, transaction.release_date, transaction.recorded_at
  FROM buffer.transaction
  WHERE transaction.hold_id = hold.hold_id AND transaction.type = 'EARNING'
  ORDER BY transaction.transaction_id DESC
  LIMIT 1
) AS earning ON unsettled.hold_id IS NULL
LEFT JOIN LATERAL (
  SELECT transaction.hold_id, transaction.release_date, transaction.recorded_at
  FROM buffer.transaction
  WHERE transaction.hold_id = hold.hold_id AND transaction.type = 'REFUND'
  ORDER BY transaction.transaction_id DESC
  LIMIT 1
) AS refund ON unsettled.hold_id IS NULL AND earning.hold_id IS NULL
"""

# As in 0004, but that a line is looked at once for all that it refers to, and once more for its batch.
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
    SELECT inserted.transaction_id
    FROM inserted
    -- Its payee's wallet and its currency. Foreign keys of the hold vouch for the wallets.
    LEFT JOIN buffer.hold
      ON hold.hold_id = inserted.hold_id
      AND hold.currency = inserted.currency
      AND hold.payee_wallet_id = CASE inserted.type
        WHEN 'PENDING_EARNING' THEN inserted.to_wallet_id ELSE inserted.from_wallet_id
      END
    -- Subqueries for a value: EXISTS might read the whole table once, for a line that is looked up.
    WHERE CASE
      WHEN inserted.hold_id IS NULL THEN (
        SELECT wallet.wallet_id FROM buffer.wallet
        WHERE wallet.wallet_id = coalesce(inserted.from_wallet_id, inserted.to_wallet_id)
          AND wallet.currency = inserted.currency
      ) IS NULL
      WHEN hold.hold_id IS NULL THEN TRUE
      -- Of a refund its payer's wallet too, and the backjob.
      WHEN inserted.type = 'REFUND' THEN (
        SELECT refunded.hold_id FROM buffer.hold AS refunded
        WHERE refunded.hold_id = inserted.hold_id AND refunded.payer_wallet_id = inserted.to_wallet_id
      ) IS NULL OR (
        SELECT backjob.backjob_id FROM buffer.backjob WHERE backjob.backjob_id = inserted.backjob_id
      ) IS NULL
      ELSE FALSE
    END
    UNION ALL
    SELECT of_batch.transaction_id
    FROM (SELECT batch_id, min(transaction_id) AS transaction_id FROM inserted GROUP BY batch_id) AS of_batch
    WHERE of_batch.batch_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM buffer.batch WHERE batch.batch_id = of_batch.batch_id)
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
    # The new ones first, so that there is no moment without one: each vouches for what it covers.
    op.create_index(
        "transaction_hold_earned_key",
        "transaction",
        ["hold_id"],
        unique=True,
        schema="buffer",
        postgresql_where=sa.text("type = 'EARNING'"),
    )
    op.create_index(
        "transaction_hold_line_key",
        "transaction",
        ["hold_id", "type", "backjob_id"],
        unique=True,
        schema="buffer",
        postgresql_nulls_not_distinct=True,
        postgresql_where=sa.text("hold_id IS NOT NULL AND type <> 'EARNING'"),
    )
    op.drop_index("transaction_hold_type_key", "transaction", schema="buffer")
    op.execute(_HOLD_STATUS)
    op.execute(_REFERENCES)


def downgrade() -> None:
    # The view and the function say the same by whichever index there is.
    op.create_index(
        "transaction_hold_type_key",
        "transaction",
        ["hold_id", "type", "backjob_id"],
        unique=True,
        schema="buffer",
        postgresql_nulls_not_distinct=True,
        postgresql_where=sa.text("hold_id IS NOT NULL"),
    )
    op.drop_index("transaction_hold_line_key", "transaction", schema="buffer")
    op.drop_index("transaction_hold_earned_key", "transaction", schema="buffer")
