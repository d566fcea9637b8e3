-- Moves the money of :hold_ids into the buffer: they were added in this transaction, and their payees' wallets are locked.
-- The wallets are locked before a transaction takes its id, so that ids are in the order of each wallet's history.
WITH
added AS MATERIALIZED (
  SELECT
    hold_id,
    payee_wallet_id,
    currency,
    amount_minor,
    release_date
  FROM buffer.unsettled_hold
  WHERE hold_id = any(CAST(:hold_ids AS bigint[]))
),

wallet_total AS MATERIALIZED (
  SELECT
    payee_wallet_id AS wallet_id,
    CAST(sum(amount_minor) AS bigint) AS amount_minor
  FROM added
  GROUP BY payee_wallet_id
),

buffered_wallet AS (
  UPDATE buffer.wallet
  SET pending_earnings_minor = wallet.pending_earnings_minor + wallet_total.amount_minor
  FROM wallet_total
  WHERE wallet.wallet_id = wallet_total.wallet_id
  RETURNING wallet_total.amount_minor
),

pending AS (
  INSERT INTO buffer.transaction (
    type, from_account, to_account, to_wallet_id, currency, amount_minor, hold_id, recorded_at
  )
  SELECT
    'PENDING_EARNING',
    'ESCROW',
    'PENDING_EARNINGS',
    payee_wallet_id,
    currency,
    amount_minor,
    hold_id,
    CAST(:now AS timestamptz)
  FROM added
  ORDER BY hold_id
),

told AS (
  INSERT INTO buffer.notification (
    type, owner, hold_id, currency, amount_minor, release_date, created_at
  )
  SELECT
    'PAYMENT_PENDING',
    payee.owner,
    added.hold_id,
    added.currency,
    added.amount_minor,
    added.release_date,
    CAST(:now AS timestamptz)
  FROM added
  INNER JOIN buffer.wallet AS payee ON added.payee_wallet_id = payee.wallet_id
  WHERE CAST(:notify AS boolean)
  ORDER BY added.hold_id
)

SELECT sum(amount_minor) AS buffered_minor
FROM buffered_wallet
