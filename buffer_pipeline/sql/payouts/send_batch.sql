-- APPROVED -> SENT for a batch, and BATCHED -> SENT for its payouts. The caller has locked both.
-- Each owner is notified. One row: what was sent.
WITH
sent_batch AS (
  UPDATE buffer.payout_batch
  SET
    state = 'SENT',
    sent_by = :sent_by,
    sent_at = CAST(:now AS timestamptz)
  WHERE payout_batch_id = CAST(:payout_batch_id AS bigint) AND state = 'APPROVED'
  RETURNING payout_batch_id
),

sent AS (
  UPDATE buffer.payout
  SET
    state = 'SENT',
    sent_at = CAST(:now AS timestamptz)
  FROM sent_batch
  WHERE payout.payout_batch_id = sent_batch.payout_batch_id AND payout.state = 'BATCHED'
  RETURNING payout.payout_id, payout.wallet_id, payout.currency, payout.amount_minor
),

notified AS (
  INSERT INTO buffer.notification (type, owner, currency, amount_minor, created_at, payout_id)
  SELECT
    'PAYOUT_SENT',
    wallet.owner,
    sent.currency,
    sent.amount_minor,
    CAST(:now AS timestamptz),
    sent.payout_id
  FROM sent
  INNER JOIN buffer.wallet ON sent.wallet_id = wallet.wallet_id
  ORDER BY sent.payout_id
)

SELECT
  count(*) AS payouts,
  CAST(coalesce(sum(amount_minor), 0) AS bigint) AS amount_minor
FROM sent
