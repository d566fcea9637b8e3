-- BUFFERED -> RELEASED for :hold_ids, which this transaction has locked; locks wallets by id.
-- The state is asked for in a CASE, which the planner cannot look into: near the end of a backlog its
-- statistics say that next to nothing is BUFFERED, and it would join thousands of rows in a loop.
-- Returns per currency what was found and what was credited; the two must agree.
WITH
opened_batch AS (
  INSERT INTO buffer.batch (kind, source, reason, due_by, recorded_at)
  VALUES (
    :kind, :source, CAST(:reason AS text), CAST(:due_by AS timestamptz), CAST(:now AS timestamptz)
  )
  RETURNING batch_id
),

released AS (
  DELETE FROM buffer.unsettled_hold
  WHERE
    hold_id = any(CAST(:hold_ids AS bigint[]))
    AND CASE WHEN state = 'BUFFERED' THEN true ELSE false END
  RETURNING
    hold_id,
    payee_wallet_id AS wallet_id,
    currency,
    amount_minor,
    release_date
),

wallet_total AS MATERIALIZED (
  SELECT
    wallet_id,
    CAST(sum(amount_minor) AS bigint) AS amount_minor
  FROM released
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
  WHERE wallet.wallet_id = wallet_total.wallet_id AND (SELECT count(*) FROM locked_wallet) > 0
  RETURNING
    wallet.wallet_id,
    wallet.owner,
    wallet.balance_minor - wallet_total.amount_minor AS balance_before_minor
),

earned AS (
  INSERT INTO buffer.transaction (
    type, from_account, from_wallet_id, to_account, to_wallet_id,
    currency, amount_minor, balance_after_minor, hold_id, batch_id, recorded_at,
    release_date
  )
  SELECT
    'EARNING',
    'PENDING_EARNINGS',
    released.wallet_id,
    'BALANCE',
    released.wallet_id,
    released.currency,
    released.amount_minor,
    credited_wallet.balance_before_minor + sum(released.amount_minor) OVER (
      PARTITION BY released.wallet_id ORDER BY released.hold_id ROWS UNBOUNDED PRECEDING
    ),
    released.hold_id,
    opened_batch.batch_id,
    CAST(:now AS timestamptz),
    released.release_date
  FROM released
  INNER JOIN credited_wallet ON released.wallet_id = credited_wallet.wallet_id
  CROSS JOIN opened_batch
  ORDER BY released.hold_id
  RETURNING currency, amount_minor
),

told AS (
  INSERT INTO buffer.notification (type, owner, hold_id, currency, amount_minor, created_at)
  SELECT
    'PAYMENT_RELEASED',
    credited_wallet.owner,
    released.hold_id,
    released.currency,
    released.amount_minor,
    CAST(:now AS timestamptz)
  FROM released
  INNER JOIN credited_wallet ON released.wallet_id = credited_wallet.wallet_id
  ORDER BY released.hold_id
),

earned_total AS (
  SELECT
    currency,
    count(*) AS holds,
    CAST(sum(amount_minor) AS bigint) AS amount_minor
  FROM earned
  GROUP BY currency
),

released_total AS (
  SELECT
    currency,
    count(*) AS holds,
    CAST(sum(amount_minor) AS bigint) AS amount_minor
  FROM released
  GROUP BY currency
)

SELECT
  opened_batch.batch_id,
  released_total.currency,
  released_total.holds AS holds_released,
  released_total.amount_minor AS released_minor,
  coalesce(earned_total.holds, 0) AS holds_credited,
  coalesce(earned_total.amount_minor, 0) AS credited_minor
FROM released_total
LEFT JOIN earned_total ON released_total.currency = earned_total.currency
CROSS JOIN opened_batch
ORDER BY released_total.currency
