-- REQUESTED | BATCHED -> CANCELLED: the amount goes from TRANSIT back to the balance. One payout; the caller has
-- locked it, its batch if it has one, and its wallet.
-- The batch has one payout less; a batch that loses its last one is CANCELLED, and keeps what it had.
WITH
taken_out AS (
  UPDATE buffer.payout_batch
  SET
    state = CASE WHEN payout_batch.payouts = 1 THEN 'CANCELLED' ELSE payout_batch.state END,
    payouts = payout_batch.payouts - CASE WHEN payout_batch.payouts = 1 THEN 0 ELSE 1 END,
    amount_minor = payout_batch.amount_minor
    - CASE WHEN payout_batch.payouts = 1 THEN 0 ELSE payout.amount_minor END,
    cancelled_by = CASE WHEN payout_batch.payouts = 1 THEN CAST(:cancelled_by AS text) END,
    cancellation_reason = CASE WHEN payout_batch.payouts = 1 THEN CAST(:reason AS text) END,
    cancelled_at = CASE WHEN payout_batch.payouts = 1 THEN CAST(:now AS timestamptz) END
  FROM buffer.payout
  WHERE
    payout.payout_id = CAST(:payout_id AS bigint)
    AND payout.state = 'BATCHED'
    AND payout_batch.payout_batch_id = payout.payout_batch_id
),

cancelled AS (
  UPDATE buffer.payout
  SET
    state = 'CANCELLED',
    payout_batch_id = NULL,
    destination_id = NULL,
    cancelled_by = :cancelled_by,
    cancellation_reason = :reason,
    cancelled_at = CAST(:now AS timestamptz)
  WHERE payout.payout_id = CAST(:payout_id AS bigint) AND payout.state IN ('REQUESTED', 'BATCHED')
  RETURNING payout_id, wallet_id, amount_minor
),

credited AS (
  UPDATE buffer.wallet
  SET balance_minor = wallet.balance_minor + cancelled.amount_minor
  FROM cancelled
  WHERE wallet.wallet_id = cancelled.wallet_id
  RETURNING
    cancelled.payout_id,
    cancelled.amount_minor,
    wallet.wallet_id,
    wallet.currency,
    wallet.balance_minor
)

INSERT INTO buffer.transaction (
  type, from_account, to_account, to_wallet_id, currency, amount_minor, balance_after_minor, payout_id,
  recorded_at
)
SELECT
  'PAYOUT_CANCELLED',
  'TRANSIT',
  'BALANCE',
  wallet_id,
  currency,
  amount_minor,
  balance_minor,
  payout_id,
  CAST(:now AS timestamptz)
FROM credited
RETURNING payout_id, balance_after_minor
