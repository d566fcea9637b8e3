-- SENT -> PAID for the payouts :payout_ids of the locked batch: the money leaves TRANSIT. Owners are notified.
-- One row: how many were marked. Takes the row locks of the payouts; nobody else waits for a lock of them.
WITH
paid AS (
  UPDATE buffer.payout
  SET
    state = 'PAID',
    paid_at = CAST(:now AS timestamptz)
  WHERE
    payout.payout_id = any(CAST(:payout_ids AS bigint[]))
    AND payout.payout_batch_id = CAST(:payout_batch_id AS bigint)
    AND payout.state = 'SENT'
  RETURNING payout_id, wallet_id, currency, amount_minor
),

line AS (
  INSERT INTO buffer.transaction (
    type, from_account, to_account, currency, amount_minor, payout_id, recorded_at
  )
  SELECT
    'PAYOUT_PAID',
    'TRANSIT',
    'EXTERNAL',
    currency,
    amount_minor,
    payout_id,
    CAST(:now AS timestamptz)
  FROM paid
  ORDER BY payout_id
  RETURNING transaction_id
),

notified AS (
  INSERT INTO buffer.notification (type, owner, currency, amount_minor, created_at, payout_id)
  SELECT
    'PAYOUT_PAID',
    wallet.owner,
    paid.currency,
    paid.amount_minor,
    CAST(:now AS timestamptz),
    paid.payout_id
  FROM paid
  INNER JOIN buffer.wallet ON paid.wallet_id = wallet.wallet_id
  ORDER BY paid.payout_id
)

SELECT count(*) AS payouts FROM line
