-- FROZEN -> REFUNDED when :amount_minor is all that the hold holds, FROZEN -> FROZEN otherwise. The hold and both
-- wallets are locked, and no backjob covers the hold. With the whole amount its freezes are closed.
-- Returns what was refunded, and what is left. No row comes back when a wallet movement has committed the reference
-- meanwhile: what else the statement has written is to be undone then.
WITH
refunded_whole AS (
  DELETE FROM buffer.unsettled_hold
  WHERE
    hold_id = CAST(:hold_id AS bigint)
    AND state = 'FROZEN'
    AND amount_minor = CAST(:amount_minor AS bigint)
  RETURNING
    hold_id,
    release_date,
    CAST(0 AS bigint) AS left_minor
),

refunded_partly AS (
  UPDATE buffer.unsettled_hold
  SET amount_minor = amount_minor - CAST(:amount_minor AS bigint)
  WHERE
    hold_id = CAST(:hold_id AS bigint)
    AND state = 'FROZEN'
    AND amount_minor > CAST(:amount_minor AS bigint)
  RETURNING
    hold_id,
    release_date,
    amount_minor AS left_minor
),

refunded AS MATERIALIZED (
  SELECT
    hold.hold_id,
    hold.payee_wallet_id,
    hold.payer_wallet_id,
    hold.currency,
    outcome.release_date,
    outcome.left_minor
  FROM (
    SELECT * FROM refunded_whole
    UNION ALL
    SELECT * FROM refunded_partly
  ) AS outcome
  INNER JOIN buffer.hold ON outcome.hold_id = hold.hold_id
),

closed AS (
  UPDATE buffer.hold_freeze
  SET
    closed_by = :refunded_by,
    closing_reason = :reason,
    closed_at = CAST(:now AS timestamptz)
  FROM refunded_whole
  WHERE hold_freeze.hold_id = refunded_whole.hold_id AND hold_freeze.closed_at IS NULL
),

opened_batch AS (
  INSERT INTO buffer.batch (kind, source, reason, recorded_at)
  SELECT
    'REFUND',
    :refunded_by,
    :reason,
    CAST(:now AS timestamptz)
  FROM refunded
  RETURNING batch_id
),

payee AS (
  UPDATE buffer.wallet
  SET pending_earnings_minor = wallet.pending_earnings_minor - CAST(:amount_minor AS bigint)
  FROM refunded
  WHERE wallet.wallet_id = refunded.payee_wallet_id
  RETURNING wallet.owner
),

payer AS (
  UPDATE buffer.wallet
  SET balance_minor = wallet.balance_minor + CAST(:amount_minor AS bigint)
  FROM refunded
  WHERE wallet.wallet_id = refunded.payer_wallet_id
  RETURNING wallet.owner, wallet.balance_minor
),

line AS (
  INSERT INTO buffer.transaction (
    type, from_account, from_wallet_id, to_account, to_wallet_id,
    currency, amount_minor, balance_after_minor, hold_id, batch_id, reference, recorded_at,
    release_date
  )
  SELECT
    'REFUND',
    'PENDING_EARNINGS',
    refunded.payee_wallet_id,
    'BALANCE',
    refunded.payer_wallet_id,
    refunded.currency,
    CAST(:amount_minor AS bigint),
    payer.balance_minor,
    refunded.hold_id,
    opened_batch.batch_id,
    CAST(:reference AS text),
    CAST(:now AS timestamptz),
    refunded.release_date
  FROM refunded
  CROSS JOIN opened_batch
  CROSS JOIN payer
  ON CONFLICT (reference) WHERE reference IS NOT NULL DO NOTHING
  RETURNING transaction_id
),

side AS (
  SELECT
    1 AS place,
    owner
  FROM payee
  UNION ALL
  SELECT
    2,
    owner
  FROM payer
),

told AS (
  INSERT INTO buffer.notification (type, owner, hold_id, currency, amount_minor, created_at)
  SELECT
    'PAYMENT_REFUNDED',
    side.owner,
    refunded.hold_id,
    refunded.currency,
    CAST(:amount_minor AS bigint),
    CAST(:now AS timestamptz)
  FROM refunded
  CROSS JOIN side
  ORDER BY side.place
)

SELECT
  line.transaction_id,
  refunded.left_minor
FROM line
CROSS JOIN refunded
