-- FROZEN -> BUFFERED for the backjob's holds that no other freeze covers, FROZEN -> FROZEN for the others; the holds
-- are locked. :state is REJECTED (with a :cooldown on top of the later of release date and clock) or WITHDRAWN (without:
-- the date stays). No row comes back when the backjob is not open.
-- Each hold's row is written, also when another freeze still covers it: a transaction that decided by a snapshot from
-- before this closing must fail with a serialization error.
-- Linear in the backjob's holds, whatever the planner believes of them: each hold is looked up by an array of ids, and
-- no two intermediate results are joined.
WITH
decided AS (
  UPDATE buffer.backjob
  SET
    state = :state,
    decision_reference = CAST(:decision_reference AS text),
    decided_by = :decided_by,
    decision_reason = :reason,
    decided_at = CAST(:now AS timestamptz)
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

-- The holds that another freeze covers.
covered AS (
  UPDATE buffer.unsettled_hold
  SET state = 'FROZEN'
  WHERE
    unsettled_hold.hold_id = any(ARRAY(SELECT hold_id FROM closed))
    AND unsettled_hold.state = 'FROZEN'
    AND EXISTS (
      SELECT FROM buffer.hold_freeze AS other
      WHERE
        other.hold_id = unsettled_hold.hold_id
        AND other.closed_at IS NULL
        AND other.backjob_id IS DISTINCT FROM CAST(:backjob_id AS bigint)
    )
),

resumed AS (
  UPDATE buffer.unsettled_hold
  SET
    state = 'BUFFERED',
    release_date = coalesce(
      greatest(unsettled_hold.release_date, CAST(:now AS timestamptz)) + CAST(:cooldown AS interval),
      unsettled_hold.release_date
    )
  WHERE
    unsettled_hold.hold_id = any(ARRAY(SELECT hold_id FROM closed))
    AND unsettled_hold.state = 'FROZEN'
    AND NOT EXISTS (
      SELECT FROM buffer.hold_freeze AS other
      WHERE
        other.hold_id = unsettled_hold.hold_id
        AND other.closed_at IS NULL
        AND other.backjob_id IS DISTINCT FROM CAST(:backjob_id AS bigint)
    )
  RETURNING
    unsettled_hold.hold_id,
    unsettled_hold.payee_wallet_id,
    unsettled_hold.currency,
    unsettled_hold.amount_minor,
    unsettled_hold.release_date
),

told_of_resuming AS (
  INSERT INTO buffer.notification (
    type, owner, hold_id, backjob_id, currency, amount_minor, release_date, created_at
  )
  SELECT
    'PAYMENT_RESUMED',
    payee.owner,
    resumed.hold_id,
    CAST(:backjob_id AS bigint),
    resumed.currency,
    resumed.amount_minor,
    resumed.release_date,
    CAST(:now AS timestamptz)
  FROM resumed
  INNER JOIN buffer.wallet AS payee ON resumed.payee_wallet_id = payee.wallet_id
  ORDER BY resumed.hold_id
),

told_of_rejection AS (
  INSERT INTO buffer.notification (type, owner, backjob_id, created_at)
  SELECT DISTINCT
    'BACKJOB_REJECTED',
    wallet.owner,
    CAST(:backjob_id AS bigint),
    CAST(:now AS timestamptz)
  FROM buffer.wallet
  WHERE
    :state = 'REJECTED'
    AND wallet.wallet_id = any(ARRAY(
      SELECT pg_catalog.unnest(ARRAY[hold.payee_wallet_id, hold.payer_wallet_id])
      FROM buffer.hold
      WHERE hold.hold_id = any(ARRAY(SELECT hold_id FROM closed))
    ))
)

SELECT backjob_id FROM decided
