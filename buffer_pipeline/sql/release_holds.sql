-- BUFFERED -> RELEASED for :hold_ids, which this transaction has locked; locks wallets by id.
-- The holds travel to their lines within their wallet's row, as arrays, and not by a join: near the end of
-- a backlog the planner takes thousands of holds for one, and would join them in a loop.
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
  WHERE hold_id = any(CAST(:hold_ids AS bigint[])) AND state = 'BUFFERED'
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
    CAST(sum(amount_minor) AS bigint) AS amount_minor,
    array_agg(hold_id) AS hold_ids,
    array_agg(amount_minor) AS amounts_minor,
    array_agg(release_date) AS release_dates
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
    wallet.currency,
    wallet.balance_minor - wallet_total.amount_minor AS balance_before_minor,
    wallet_total.hold_ids,
    wallet_total.amounts_minor,
    wallet_total.release_dates
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
    credited_wallet.wallet_id,
    'BALANCE',
    credited_wallet.wallet_id,
    credited_wallet.currency,
    credit.amount_minor,
    credited_wallet.balance_before_minor + sum(credit.amount_minor) OVER (
      PARTITION BY credited_wallet.wallet_id ORDER BY credit.hold_id ROWS UNBOUNDED PRECEDING
    ),
    credit.hold_id,
    (SELECT batch_id FROM opened_batch),
    CAST(:now AS timestamptz),
    credit.release_date
  FROM credited_wallet
  CROSS JOIN LATERAL unnest(
    credited_wallet.hold_ids, credited_wallet.amounts_minor, credited_wallet.release_dates
  ) AS credit (hold_id, amount_minor, release_date)
  RETURNING currency, amount_minor
),

told AS (
  INSERT INTO buffer.notification (type, owner, hold_id, currency, amount_minor, created_at)
  SELECT
    'PAYMENT_RELEASED',
    credited_wallet.owner,
    credit.hold_id,
    credited_wallet.currency,
    credit.amount_minor,
    CAST(:now AS timestamptz)
  FROM credited_wallet
  CROSS JOIN LATERAL unnest(credited_wallet.hold_ids, credited_wallet.amounts_minor)
    AS credit (hold_id, amount_minor)
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
