-- BUFFERED -> RELEASED: all that is matured behind "after" and up to "through" in the order of release (release hour,
-- wallet, hold), of wallets behind :after_shard up to :through_shard; or, where :hold_ids is given, those, which
-- this transaction has locked.
-- Of a stretch each hold is found, locked and deleted in one visit to its row. It waits for whoever has locked one,
-- and takes locks as it comes to them: a transaction that runs it gives up a lock long before deadlock_timeout
-- (stretch_settings). By ids, holds and wallets are locked already.
-- A hold that somebody changed meanwhile is looked at again behind its lock, as PostgreSQL does for every DELETE.
-- What was deleted is what is credited.
-- Holds meet their wallets' rows by a FULL JOIN only, which is never done by a loop: near the end of a backlog the
-- planner takes thousands of holds for one. Switching hash and merge joins off leaves it one of the two, as it has no
-- other way. `coalesce(...) > 0` keeps the planner from reducing the FULL JOIN to an inner join.
-- A hold whose wallet was not credited gets no line. Foreign keys vouch that a hold's currency is its wallet's.
-- Returns what left the buffer, per currency what the wallets were credited, and what lines were written: all three
-- must agree.
WITH
released_stretch AS (
  DELETE FROM buffer.unsettled_hold
  WHERE
    CAST(:hold_ids AS bigint []) IS NULL
    AND state = 'BUFFERED'
    AND release_date <= CAST(:due_by AS timestamptz)
    AND (release_hour, payee_wallet_id, hold_id)
    > (CAST(:after_hour AS timestamptz), CAST(:after_wallet_id AS bigint), CAST(:after_hold_id AS bigint))
    AND (release_hour, payee_wallet_id, hold_id)
    <= (CAST(:through_hour AS timestamptz), CAST(:through_wallet_id AS bigint), CAST(:through_hold_id AS bigint))
    AND payee_wallet_id > CAST(:after_shard AS bigint)
    AND payee_wallet_id <= CAST(:through_shard AS bigint)
  RETURNING
    hold_id,
    payee_wallet_id AS wallet_id,
    amount_minor,
    release_date
),

released_by_id AS (
  DELETE FROM buffer.unsettled_hold
  WHERE
    hold_id = any(CAST(:hold_ids AS bigint []))
    AND state = 'BUFFERED'
  RETURNING
    hold_id,
    payee_wallet_id AS wallet_id,
    amount_minor,
    release_date
),

released AS (
  SELECT * FROM released_stretch
  UNION ALL
  SELECT * FROM released_by_id
),

credit AS MATERIALIZED (
  SELECT
    hold_id,
    wallet_id,
    amount_minor,
    buffer.sum_minor(amount_minor) OVER (
      PARTITION BY wallet_id ORDER BY hold_id ROWS UNBOUNDED PRECEDING
    ) AS running_minor,
    release_date
  FROM released
),

wallet_total AS MATERIALIZED (
  SELECT
    wallet_id,
    count(*) AS holds,
    CAST(sum(amount_minor) AS bigint) AS amount_minor
  FROM credit
  GROUP BY wallet_id
  ORDER BY wallet_id
),

opened_batch AS (
  INSERT INTO buffer.batch (kind, source, reason, due_by, recorded_at)
  SELECT
    :kind,
    :source,
    CAST(:reason AS text),
    CASE WHEN :kind = 'DUE' THEN CAST(:due_by AS timestamptz) END,
    CAST(:now AS timestamptz)
  WHERE EXISTS (SELECT FROM wallet_total)
  RETURNING batch_id
),

credited_wallet AS (
  UPDATE buffer.wallet
  SET
    balance_minor = wallet.balance_minor + wallet_total.amount_minor,
    pending_earnings_minor = wallet.pending_earnings_minor - wallet_total.amount_minor
  FROM wallet_total
  WHERE wallet.wallet_id = wallet_total.wallet_id
  RETURNING
    wallet.wallet_id,
    wallet.owner,
    wallet.currency,
    wallet_total.holds,
    wallet_total.amount_minor,
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
    line.wallet_id,
    'BALANCE',
    line.wallet_id,
    line.currency,
    line.amount_minor,
    line.balance_after_minor,
    line.hold_id,
    (SELECT batch_id FROM opened_batch),
    CAST(:now AS timestamptz),
    line.release_date
  FROM (
    -- Sorted before the words that are the same in each line make it wide.
    SELECT
      credit.wallet_id,
      credited_wallet.currency,
      credit.amount_minor,
      credited_wallet.balance_before_minor + credit.running_minor AS balance_after_minor,
      credit.hold_id,
      credit.release_date
    FROM credit
    FULL JOIN credited_wallet ON credit.wallet_id = credited_wallet.wallet_id
    WHERE coalesce(credited_wallet.wallet_id, 0) > 0
    ORDER BY credit.hold_id
  ) AS line
  RETURNING amount_minor
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
  FROM credit
  FULL JOIN credited_wallet ON credit.wallet_id = credited_wallet.wallet_id
  WHERE coalesce(credited_wallet.wallet_id, 0) > 0
  -- An owner's messages go out in the order in which they are numbered here.
  ORDER BY credit.wallet_id, credit.hold_id
),

-- Of all currencies together, as numeric: it may be more than a bigint.
left_total AS (
  SELECT
    coalesce(sum(holds), 0) AS holds,
    coalesce(sum(amount_minor), 0) AS amount_minor
  FROM wallet_total
),

credited_total AS (
  SELECT
    currency,
    sum(holds) AS holds,
    sum(amount_minor) AS amount_minor
  FROM credited_wallet
  GROUP BY currency
),

line_total AS (
  SELECT
    count(*) AS holds,
    coalesce(sum(amount_minor), 0) AS amount_minor
  FROM earned
)

SELECT
  (SELECT batch_id FROM opened_batch) AS batch_id,
  CAST(left_total.holds AS bigint) AS holds_left,
  left_total.amount_minor AS left_minor,
  credited_total.currency,
  CAST(coalesce(credited_total.holds, 0) AS bigint) AS holds_credited,
  coalesce(credited_total.amount_minor, 0) AS credited_minor,
  line_total.holds AS lines,
  line_total.amount_minor AS lines_minor
FROM left_total
CROSS JOIN line_total
LEFT JOIN credited_total ON TRUE
ORDER BY credited_total.currency
