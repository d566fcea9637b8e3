"""Triggers of the first revision: what is written stays, and transactions refer to what is there."""

from typing import Final

# Transactions are written once. The owner has no privilege to change them, and a trigger refuses it to
# those who have more privileges.
APPEND_ONLY: Final = """
CREATE FUNCTION buffer.refuse_rewriting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '%.%: % refused; its rows are kept as they were written',
    TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER transaction_is_append_only
BEFORE UPDATE OR DELETE OR TRUNCATE ON buffer.transaction
FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_rewriting();
CREATE TRIGGER batch_is_append_only
BEFORE UPDATE OR DELETE OR TRUNCATE ON buffer.batch
FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_rewriting();
CREATE TRIGGER wallet_is_kept BEFORE DELETE OR TRUNCATE ON buffer.wallet
FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_rewriting();
CREATE TRIGGER hold_is_kept BEFORE DELETE OR TRUNCATE ON buffer.hold
FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_rewriting();
CREATE TRIGGER backjob_is_kept BEFORE DELETE OR TRUNCATE ON buffer.backjob
FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_rewriting();
CREATE TRIGGER hold_freeze_is_kept BEFORE DELETE OR TRUNCATE ON buffer.hold_freeze
FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_rewriting();
REVOKE UPDATE, DELETE, TRUNCATE
  ON buffer.wallet, buffer.hold, buffer.transaction, buffer.batch, buffer.backjob, buffer.hold_freeze
  FROM CURRENT_USER;
GRANT UPDATE (closed_by, closing_reason, closed_at) ON buffer.hold_freeze TO CURRENT_USER;
GRANT UPDATE (balance_minor, pending_earnings_minor) ON buffer.wallet TO CURRENT_USER;
GRANT UPDATE (state, release_date, refunded_minor, settled_at) ON buffer.hold TO CURRENT_USER;
GRANT UPDATE (state, decided_by, decision_reason, decided_at, refunded_minor)
  ON buffer.backjob TO CURRENT_USER;
"""

# What foreign keys would check, once per statement instead of five times per row. This is sound because
# the referenced rows are never deleted and their keys never change (above).
REFERENCES: Final = """
CREATE FUNCTION buffer.refuse_stray_transactions() RETURNS trigger
LANGUAGE plpgsql SET random_page_cost = 1.1 AS $$
DECLARE
  stray bigint;
BEGIN
  SELECT min(line.transaction_id) INTO stray
  FROM (
    -- Of a hold: its payee's wallet, its currency, and its payer's wallet where it is refunded.
    -- Foreign keys of the hold vouch for the wallets.
    SELECT inserted.transaction_id
    FROM inserted
    LEFT JOIN buffer.hold
      ON hold.hold_id = inserted.hold_id
      AND hold.currency = inserted.currency
      AND hold.payee_wallet_id = CASE inserted.type
        WHEN 'PENDING_EARNING' THEN inserted.to_wallet_id ELSE inserted.from_wallet_id
      END
      AND (inserted.type <> 'REFUND' OR hold.payer_wallet_id = inserted.to_wallet_id)
    WHERE inserted.hold_id IS NOT NULL AND hold.hold_id IS NULL
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
CREATE TRIGGER transaction_references_what_is_there AFTER INSERT ON buffer.transaction
REFERENCING NEW TABLE AS inserted
FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_stray_transactions();
"""
