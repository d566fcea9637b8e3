-- BUFFERED -> RELEASED for a range: all that is matured after "after" and up to "through" in the order of
-- release (release hour, wallet, hold), of wallets after :after_shard up to :through_shard. Or, if :hold_ids
-- is given, for these holds, which this transaction has locked together with their wallets.
-- Bound: the size of the range, which the caller has counted, or the number of :hold_ids.
-- For a range, each hold is found, locked and deleted in one visit to its row. The statement waits for locks
-- and takes them in the order in which it meets the rows. So a transaction that runs it has a lock timeout
-- far below deadlock_timeout (range_settings). A hold that another transaction changed meanwhile is checked
-- again after its lock, as PostgreSQL does for every DELETE. Only what was deleted is credited.
-- Holds and wallets are joined only by a FULL JOIN, which is never a nested loop: near the end of a backlog
-- the planner expects one hold where there are thousands. If hash and merge joins are off, it still uses one
-- of them, because a FULL JOIN has no other plan. `coalesce(...) > 0` keeps the planner from reducing the
-- FULL JOIN to an inner join. A hold whose wallet was not credited gets no line. Foreign keys guarantee that
-- a hold has the currency of its wallet.
-- Returns what left the buffer, what the wallets were credited per currency, and which lines were written.
-- All three must be equal. Of payees who owe something, also returns what each hold has released: the caller recovers
-- their debts. Whether there are any is asked once for all wallets, so that it costs nothing for each hold.
WITH
released_range AS (
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
    kind,
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
    kind,
    payee_wallet_id AS wallet_id,
    amount_minor,
    release_date
),

released AS (
  SELECT * FROM released_range
  UNION ALL
  SELECT * FROM released_by_id
),

credit AS MATERIALIZED (
  SELECT
    hold_id,
    kind,
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
  INSERT INTO buffer.batch (kind, source, reason, due_by, recorded_at, reference, named_hold_id)
  SELECT
    :kind,
    :source,
    CAST(:reason AS text),
    CASE WHEN :kind = 'DUE' THEN CAST(:due_by AS timestamptz) END,
    CAST(:now AS timestamptz),
    CAST(:reference AS text),
    CAST(:named_hold_id AS bigint)
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
    wallet.balance_minor - wallet_total.amount_minor AS balance_before_minor,
    wallet.debt_minor
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
    -- Sorted here, before the constant columns make the rows wider.
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

notified AS (
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
  WHERE
    coalesce(credited_wallet.wallet_id, 0) > 0
    -- As buffer.notifies_of, which is called only for reserves: fees are many.
    AND CASE credit.kind
      WHEN 'PAYEE' THEN TRUE
      WHEN 'RESERVE' THEN buffer.notifies_of(credit.hold_id, credit.kind, credited_wallet.owner)
      ELSE EXISTS (
        SELECT FROM buffer.contact
        WHERE contact.owner = credited_wallet.owner AND contact.notify_of_shares
      )
    END
  -- An owner's messages are sent in the order of the ids that they get here.
  ORDER BY credit.wallet_id, credit.hold_id
),

-- The sum over all currencies is numeric, because it may be larger than a bigint.
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
),

-- CASE keeps the planner from making a join of it, which would compare each hold with each wallet.
of_debtors AS (
  SELECT
    pg_catalog.array_agg(credit.hold_id ORDER BY credit.hold_id) AS hold_ids,
    pg_catalog.array_agg(credit.amount_minor ORDER BY credit.hold_id) AS amounts_minor
  FROM credit
  WHERE
    (SELECT max(credited_wallet.debt_minor) FROM credited_wallet) > 0
    AND CASE
      WHEN TRUE THEN credit.wallet_id IN (
        SELECT credited_wallet.wallet_id FROM credited_wallet
        WHERE credited_wallet.debt_minor > 0
      )
    END
)

SELECT
  (SELECT batch_id FROM opened_batch) AS batch_id,
  CAST(left_total.holds AS bigint) AS holds_left,
  left_total.amount_minor AS left_minor,
  credited_total.currency,
  CAST(coalesce(credited_total.holds, 0) AS bigint) AS holds_credited,
  coalesce(credited_total.amount_minor, 0) AS credited_minor,
  line_total.holds AS lines,
  line_total.amount_minor AS lines_minor,
  of_debtors.hold_ids AS hold_ids_of_debtors,
  of_debtors.amounts_minor AS amounts_of_debtors_minor
FROM left_total
CROSS JOIN line_total
CROSS JOIN of_debtors
LEFT JOIN credited_total ON TRUE
ORDER BY credited_total.currency
