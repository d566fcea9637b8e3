-- BUFFERED -> RELEASED, the oldest release hour first, at most :batch_limit holds.
-- Passes over holds that another transaction has locked; locks holds, then wallets by id.
-- Starts behind (:after_hour, :after_wallet_id, :after_hold_id), so that a run reads
-- each index entry once, the dead ones of its earlier batches included.
WITH
matured AS MATERIALIZED (
  SELECT
    hold_id,
    payee_wallet_id AS wallet_id,
    currency,
    amount_minor - refunded_minor AS amount_minor,
    release_hour
  FROM buffer.hold
  WHERE
    state = 'BUFFERED'
    AND release_hour <= CAST(:due_by AS timestamptz)
    AND release_date <= CAST(:due_by AS timestamptz)
    AND (release_hour, payee_wallet_id, hold_id)
    > (CAST(:after_hour AS timestamptz), CAST(:after_wallet_id AS bigint), CAST(:after_hold_id AS bigint))
  ORDER BY release_hour, payee_wallet_id, hold_id
  LIMIT CAST(:batch_limit AS bigint)
  FOR NO KEY UPDATE SKIP LOCKED
),

wallet_total AS MATERIALIZED (
  SELECT
    wallet_id,
    CAST(sum(amount_minor) AS bigint) AS amount_minor
  FROM matured
  GROUP BY wallet_id
),

locked_wallet AS MATERIALIZED (
  SELECT wallet_id
  FROM buffer.wallet
  WHERE wallet_id IN (SELECT wallet_id FROM wallet_total)
  ORDER BY wallet_id
  FOR NO KEY UPDATE
),

credited_wallet AS (
  UPDATE buffer.wallet
  SET
    balance_minor = wallet.balance_minor + wallet_total.amount_minor,
    pending_earnings_minor = wallet.pending_earnings_minor - wallet_total.amount_minor
  FROM wallet_total
  INNER JOIN locked_wallet ON wallet_total.wallet_id = locked_wallet.wallet_id
  WHERE wallet.wallet_id = wallet_total.wallet_id
  RETURNING
    wallet.wallet_id,
    wallet.owner,
    wallet.balance_minor - wallet_total.amount_minor AS balance_before_minor
),

released AS (
  UPDATE buffer.hold
  SET state = 'RELEASED', settled_at = CAST(:now AS timestamptz)
  FROM matured
  WHERE hold.hold_id = matured.hold_id AND hold.state = 'BUFFERED'
  RETURNING hold.hold_id
),

opened_batch AS (
  INSERT INTO buffer.batch (kind, source, due_by, recorded_at)
  SELECT 'DUE', :source, CAST(:due_by AS timestamptz), CAST(:now AS timestamptz)
  WHERE EXISTS (SELECT FROM matured)
  RETURNING batch_id
),

earned AS (
  INSERT INTO buffer.transaction (
    type, from_account, from_wallet_id, to_account, to_wallet_id,
    currency, amount_minor, balance_after_minor, hold_id, batch_id, recorded_at
  )
  SELECT
    'EARNING',
    'PENDING_EARNINGS',
    matured.wallet_id,
    'BALANCE',
    matured.wallet_id,
    matured.currency,
    matured.amount_minor,
    credited_wallet.balance_before_minor + sum(matured.amount_minor) OVER (
      PARTITION BY matured.wallet_id ORDER BY matured.hold_id ROWS UNBOUNDED PRECEDING
    ),
    matured.hold_id,
    opened_batch.batch_id,
    CAST(:now AS timestamptz)
  FROM matured
  INNER JOIN released ON matured.hold_id = released.hold_id
  INNER JOIN credited_wallet ON matured.wallet_id = credited_wallet.wallet_id
  CROSS JOIN opened_batch
  ORDER BY matured.wallet_id, matured.hold_id
  RETURNING currency, amount_minor
),

told AS (
  INSERT INTO buffer.notification (type, owner, hold_id, currency, amount_minor, created_at)
  SELECT
    'PAYMENT_RELEASED',
    credited_wallet.owner,
    matured.hold_id,
    matured.currency,
    matured.amount_minor,
    CAST(:now AS timestamptz)
  FROM matured
  INNER JOIN credited_wallet ON matured.wallet_id = credited_wallet.wallet_id
  ORDER BY matured.hold_id
),

earned_total AS (
  SELECT
    currency,
    count(*) AS holds_released,
    CAST(sum(amount_minor) AS bigint) AS amount_minor
  FROM earned
  GROUP BY currency
),

matured_total AS (
  SELECT
    currency,
    count(*) AS holds_matured,
    CAST(sum(amount_minor) AS bigint) AS amount_minor
  FROM matured
  GROUP BY currency
)

SELECT
  matured_total.currency,
  matured_total.holds_matured,
  matured_total.amount_minor AS matured_minor,
  coalesce(earned_total.holds_released, 0) AS holds_released,
  coalesce(earned_total.amount_minor, 0) AS released_minor,
  opened_batch.batch_id,
  last_matured.release_hour,
  last_matured.wallet_id,
  last_matured.hold_id
FROM matured_total
LEFT JOIN earned_total ON matured_total.currency = earned_total.currency
CROSS JOIN opened_batch
CROSS JOIN (
  SELECT
    release_hour,
    wallet_id,
    hold_id
  FROM matured
  ORDER BY release_hour DESC, wallet_id DESC, hold_id DESC
  LIMIT 1
) AS last_matured
ORDER BY matured_total.currency
