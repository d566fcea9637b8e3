-- FROZEN -> REFUNDED where all that a hold holds is refunded, FROZEN -> BUFFERED where a rest
-- is left; the holds are locked and no other freeze covers them. Locks wallets by id.
-- No row comes back when the backjob is not open.
WITH
share AS MATERIALIZED (
  SELECT *
  FROM unnest(CAST(:hold_ids AS bigint[]), CAST(:refunds_minor AS bigint[]))
    AS share_of_hold (hold_id, refund_minor)
),

decided AS (
  UPDATE buffer.backjob
  SET
    state = 'APPROVED',
    decided_by = :decided_by,
    decision_reason = :reason,
    decided_at = CAST(:now AS timestamptz),
    refunded_minor = (SELECT CAST(sum(refund_minor) AS bigint) FROM share)
  WHERE backjob_id = CAST(:backjob_id AS bigint) AND state = 'OPEN'
  RETURNING backjob_id
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
  USING share
  INNER JOIN closed ON share.hold_id = closed.hold_id
  WHERE
    unsettled_hold.hold_id = share.hold_id
    AND unsettled_hold.hold_id = any(CAST(:hold_ids AS bigint[]))
    AND unsettled_hold.state = 'FROZEN'
    AND unsettled_hold.amount_minor = share.refund_minor
  RETURNING
    unsettled_hold.hold_id,
    unsettled_hold.release_date,
    share.refund_minor,
    0 AS rest_minor
),

resumed AS (
  UPDATE buffer.unsettled_hold
  SET
    state = 'BUFFERED',
    amount_minor = unsettled_hold.amount_minor - share.refund_minor
  FROM share
  INNER JOIN closed ON share.hold_id = closed.hold_id
  WHERE
    unsettled_hold.hold_id = share.hold_id
    AND unsettled_hold.hold_id = any(CAST(:hold_ids AS bigint[]))
    AND unsettled_hold.state = 'FROZEN'
    AND unsettled_hold.amount_minor > share.refund_minor
  RETURNING
    unsettled_hold.hold_id,
    unsettled_hold.release_date,
    share.refund_minor,
    unsettled_hold.amount_minor AS rest_minor
),

unfrozen AS MATERIALIZED (
  SELECT
    hold.hold_id,
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
    CAST(sum(balance_change_minor) AS bigint) AS balance_change_minor
  FROM (
    SELECT
      payee_wallet_id AS wallet_id,
      -refund_minor AS pending_change_minor,
      0 AS balance_change_minor
    FROM unfrozen
    UNION ALL
    SELECT
      payer_wallet_id,
      0,
      refund_minor
    FROM unfrozen
  ) AS side
  GROUP BY wallet_id
),

locked_wallet AS MATERIALIZED (
  SELECT wallet_id
  FROM buffer.wallet
  WHERE wallet_id IN (SELECT wallet_id FROM wallet_change)
  ORDER BY wallet_id
  FOR NO KEY UPDATE
),

changed_wallet AS (
  UPDATE buffer.wallet
  SET
    balance_minor = wallet.balance_minor + wallet_change.balance_change_minor,
    pending_earnings_minor = wallet.pending_earnings_minor + wallet_change.pending_change_minor
  FROM wallet_change
  WHERE wallet.wallet_id = wallet_change.wallet_id AND (SELECT count(*) FROM locked_wallet) > 0
  RETURNING
    wallet.wallet_id,
    wallet.owner,
    wallet.balance_minor - wallet_change.balance_change_minor AS balance_before_minor
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
    unfrozen.payee_wallet_id,
    'BALANCE',
    unfrozen.payer_wallet_id,
    unfrozen.currency,
    unfrozen.refund_minor,
    payer.balance_before_minor + CAST(sum(unfrozen.refund_minor) OVER (
      PARTITION BY unfrozen.payer_wallet_id ORDER BY unfrozen.hold_id ROWS UNBOUNDED PRECEDING
    ) AS bigint),
    unfrozen.hold_id,
    CAST(:backjob_id AS bigint),
    CAST(:now AS timestamptz),
    unfrozen.release_date
  FROM unfrozen
  INNER JOIN changed_wallet AS payer ON unfrozen.payer_wallet_id = payer.wallet_id
  WHERE unfrozen.refund_minor > 0
  ORDER BY unfrozen.payer_wallet_id, unfrozen.hold_id
  RETURNING amount_minor
),

told_of_refund AS (
  INSERT INTO buffer.notification (
    type, owner, hold_id, backjob_id, currency, amount_minor, created_at
  )
  SELECT
    'PAYMENT_REFUNDED',
    side.owner,
    unfrozen.hold_id,
    CAST(:backjob_id AS bigint),
    unfrozen.currency,
    unfrozen.refund_minor,
    CAST(:now AS timestamptz)
  FROM unfrozen
  INNER JOIN changed_wallet AS side
    ON side.wallet_id IN (unfrozen.payee_wallet_id, unfrozen.payer_wallet_id)
  WHERE unfrozen.refund_minor > 0
  ORDER BY unfrozen.hold_id, side.wallet_id
),

told_of_rest AS (
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
  INNER JOIN changed_wallet AS payee ON unfrozen.payee_wallet_id = payee.wallet_id
  WHERE unfrozen.rest_minor > 0
  ORDER BY unfrozen.hold_id
),

told_of_approval AS (
  INSERT INTO buffer.notification (type, owner, backjob_id, created_at)
  -- An owner has a wallet in each currency.
  SELECT DISTINCT
    'BACKJOB_APPROVED',
    owner,
    CAST(:backjob_id AS bigint),
    CAST(:now AS timestamptz)
  FROM changed_wallet
)

SELECT
  decided.backjob_id,
  (SELECT coalesce(CAST(sum(amount_minor) AS bigint), 0) FROM refunded) AS refunded_minor
FROM decided
