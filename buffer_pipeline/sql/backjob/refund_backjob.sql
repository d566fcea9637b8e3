-- FROZEN -> REFUNDED if all that a hold holds is refunded; FROZEN -> BUFFERED if something is left. All holds
-- of one backjob.
-- The caller has locked the job, then the holds, then their wallets, and no other freeze covers the holds.
-- :hold_ids is sorted. :refunds_minor has the refund of each hold at the same position, 0 if the hold keeps
-- all.
-- Returns no row if the backjob is not open.
-- The time is linear in the number of holds, whatever the planner expects: the refund of a hold is found by
-- binary search in the sorted ids (width_bucket), and two intermediate results are joined only by a FULL
-- JOIN, which is never a nested loop.
WITH
decided AS (
  UPDATE buffer.backjob
  SET
    state = 'APPROVED',
    decision_reference = CAST(:decision_reference AS text),
    decided_by = :decided_by,
    decision_reason = :reason,
    decided_at = CAST(:now AS timestamptz),
    refunded_minor = (
      SELECT CAST(sum(given.refund_minor) AS bigint)
      FROM pg_catalog.unnest(CAST(:refunds_minor AS bigint[])) AS given (refund_minor)
    )
  WHERE backjob_id = CAST(:backjob_id AS bigint) AND state = 'OPEN'
  RETURNING backjob_id
),

freed_job AS (
  UPDATE buffer.job
  SET open_backjob_id = NULL
  WHERE open_backjob_id = (SELECT backjob_id FROM decided)
),

closed AS (
  UPDATE buffer.hold_freeze
  SET
    closed_by = :decided_by,
    closing_reason = :reason,
    closed_at = CAST(:now AS timestamptz)
  FROM decided
  WHERE hold_freeze.backjob_id = decided.backjob_id AND hold_freeze.closed_at IS NULL
  RETURNING hold_freeze.hold_id
),

settled AS (
  DELETE FROM buffer.unsettled_hold
  WHERE
    hold_id = any(ARRAY(SELECT hold_id FROM closed))
    AND state = 'FROZEN'
    AND amount_minor = (CAST(:refunds_minor AS bigint[]))[pg_catalog.width_bucket(hold_id, CAST(:hold_ids AS bigint[]))]
  RETURNING
    hold_id,
    release_date,
    amount_minor AS refund_minor,
    CAST(0 AS bigint) AS rest_minor
),

resumed AS (
  UPDATE buffer.unsettled_hold
  SET
    state = 'BUFFERED',
    amount_minor
    = amount_minor - (CAST(:refunds_minor AS bigint[]))[pg_catalog.width_bucket(hold_id, CAST(:hold_ids AS bigint[]))]
  WHERE
    hold_id = any(ARRAY(SELECT hold_id FROM closed))
    AND state = 'FROZEN'
    AND amount_minor > (CAST(:refunds_minor AS bigint[]))[pg_catalog.width_bucket(hold_id, CAST(:hold_ids AS bigint[]))]
  RETURNING
    hold_id,
    release_date,
    (CAST(:refunds_minor AS bigint[]))[pg_catalog.width_bucket(hold_id, CAST(:hold_ids AS bigint[]))] AS refund_minor,
    amount_minor AS rest_minor
),

unfrozen AS MATERIALIZED (
  SELECT
    hold.hold_id,
    hold.kind,
    coalesce(hold.earning_id, hold.hold_id) AS earning_id,
    hold.payee_wallet_id,
    hold.payer_wallet_id,
    hold.currency,
    outcome.release_date,
    outcome.refund_minor,
    outcome.rest_minor
  FROM (
    SELECT * FROM settled
    UNION ALL
    SELECT * FROM resumed
  ) AS outcome
  INNER JOIN buffer.hold ON outcome.hold_id = hold.hold_id
),

wallet_change AS MATERIALIZED (
  SELECT
    wallet_id,
    CAST(sum(pending_change_minor) AS bigint) AS pending_change_minor,
    CAST(sum(balance_change_minor) AS bigint) AS balance_change_minor,
    bool_or(is_notified) AS is_notified
  FROM (
    SELECT
      payee_wallet_id AS wallet_id,
      -refund_minor AS pending_change_minor,
      0 AS balance_change_minor,
      -- The owner of a fee or a tax has no part in a backjob.
      kind IN ('PAYEE', 'RESERVE') AS is_notified
    FROM unfrozen
    UNION ALL
    SELECT
      payer_wallet_id,
      0,
      refund_minor,
      TRUE
    FROM unfrozen
  ) AS side
  GROUP BY wallet_id
),

changed_wallet AS (
  UPDATE buffer.wallet
  SET
    balance_minor = wallet.balance_minor + wallet_change.balance_change_minor,
    pending_earnings_minor = wallet.pending_earnings_minor + wallet_change.pending_change_minor
  FROM wallet_change
  WHERE wallet.wallet_id = wallet_change.wallet_id
  RETURNING
    wallet.wallet_id,
    wallet.owner,
    wallet_change.is_notified,
    wallet.balance_minor - wallet_change.balance_change_minor AS balance_before_minor
),

refund AS MATERIALIZED (
  SELECT
    hold_id,
    kind,
    earning_id,
    payee_wallet_id,
    payer_wallet_id,
    currency,
    release_date,
    refund_minor,
    buffer.sum_minor(refund_minor) OVER (
      PARTITION BY payer_wallet_id ORDER BY hold_id ROWS UNBOUNDED PRECEDING
    ) AS running_minor
  FROM unfrozen
  WHERE refund_minor > 0
),

refunded AS (
  INSERT INTO buffer.transaction (
    type, from_account, from_wallet_id, to_account, to_wallet_id,
    currency, amount_minor, balance_after_minor, hold_id, backjob_id, recorded_at,
    release_date
  )
  SELECT
    'REFUND',
    'PENDING_EARNINGS',
    refund.payee_wallet_id,
    'BALANCE',
    refund.payer_wallet_id,
    refund.currency,
    refund.refund_minor,
    payer.balance_before_minor + refund.running_minor,
    refund.hold_id,
    CAST(:backjob_id AS bigint),
    CAST(:now AS timestamptz),
    refund.release_date
  FROM refund
  FULL JOIN changed_wallet AS payer ON refund.payer_wallet_id = payer.wallet_id
  -- `coalesce(…) > 0` keeps the planner from reducing the FULL JOIN to an inner join.
  WHERE coalesce(payer.wallet_id, 0) > 0 AND coalesce(refund.hold_id, 0) > 0
  ORDER BY refund.payer_wallet_id, refund.hold_id
  RETURNING amount_minor
),

notified_of_refund AS (
  INSERT INTO buffer.notification (
    type, owner, hold_id, backjob_id, currency, amount_minor, created_at
  )
  SELECT
    'PAYMENT_REFUNDED',
    wallet.owner,
    side.hold_id,
    CAST(:backjob_id AS bigint),
    side.currency,
    side.refund_minor,
    CAST(:now AS timestamptz)
  FROM (
    SELECT
      hold_id,
      kind,
      payee_wallet_id AS wallet_id,
      currency,
      refund_minor
    FROM refund
    UNION ALL
    -- The payer gets one notification for an earning, whatever its shares are.
    SELECT
      earning_id,
      'PAYEE',
      payer_wallet_id,
      currency,
      CAST(sum(refund_minor) AS bigint)
    FROM refund
    GROUP BY earning_id, payer_wallet_id, currency
  ) AS side
  INNER JOIN buffer.wallet ON side.wallet_id = wallet.wallet_id
  WHERE side.kind = 'PAYEE' OR buffer.notifies_of(side.hold_id, side.kind, wallet.owner)
  ORDER BY side.hold_id, side.wallet_id
),

notified_of_rest AS (
  INSERT INTO buffer.notification (
    type, owner, hold_id, backjob_id, currency, amount_minor, release_date, created_at
  )
  SELECT
    'PAYMENT_RESUMED',
    payee.owner,
    unfrozen.hold_id,
    CAST(:backjob_id AS bigint),
    unfrozen.currency,
    unfrozen.rest_minor,
    unfrozen.release_date,
    CAST(:now AS timestamptz)
  FROM unfrozen
  INNER JOIN buffer.wallet AS payee ON unfrozen.payee_wallet_id = payee.wallet_id
  WHERE
    unfrozen.rest_minor > 0
    AND (unfrozen.kind = 'PAYEE' OR buffer.notifies_of(unfrozen.hold_id, unfrozen.kind, payee.owner))
  ORDER BY unfrozen.hold_id
),

notified_of_approval AS (
  INSERT INTO buffer.notification (type, owner, backjob_id, created_at)
  -- DISTINCT, because an owner may have several wallets, one per currency.
  SELECT DISTINCT
    'BACKJOB_APPROVED',
    owner,
    CAST(:backjob_id AS bigint),
    CAST(:now AS timestamptz)
  FROM changed_wallet
  WHERE is_notified
)

SELECT
  decided.backjob_id,
  (SELECT coalesce(CAST(sum(amount_minor) AS bigint), 0) FROM refunded) AS refunded_minor
FROM decided
