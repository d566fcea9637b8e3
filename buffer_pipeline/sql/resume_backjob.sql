-- FROZEN -> BUFFERED for the backjob's holds that no other freeze covers; the holds are locked.
-- :state is REJECTED (with a :cooldown on top of the later of release date and clock)
-- or WITHDRAWN (without: the date stays). No row comes back when the backjob is not open.
WITH
decided AS (
  UPDATE buffer.backjob
  SET
    state = :state,
    decided_by = :decided_by,
    decision_reason = :reason,
    decided_at = CAST(:now AS timestamptz)
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

resumed AS (
  UPDATE buffer.unsettled_hold
  SET
    state = 'BUFFERED',
    release_date = coalesce(
      greatest(unsettled_hold.release_date, CAST(:now AS timestamptz)) + CAST(:cooldown AS interval),
      unsettled_hold.release_date
    )
  FROM closed
  WHERE
    unsettled_hold.hold_id = closed.hold_id
    -- So that each is looked up, however few holds the planner believes to wait.
    AND unsettled_hold.hold_id = any(ARRAY(SELECT hold_id FROM closed))
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
  FROM closed
  INNER JOIN buffer.hold ON closed.hold_id = hold.hold_id
  INNER JOIN buffer.wallet ON wallet.wallet_id IN (hold.payee_wallet_id, hold.payer_wallet_id)
  WHERE :state = 'REJECTED'
)

SELECT backjob_id FROM decided
