-- FROZEN -> BUFFERED when this was the last freeze, FROZEN -> FROZEN otherwise; the hold is locked.
-- No row comes back when the freeze is closed already. The hold's row is written even when another freeze still
-- covers it: a transaction that decided by a snapshot from before this closing must fail with a serialization error.
WITH
closed AS (
  UPDATE buffer.hold_freeze
  SET
    closing_reference = CAST(:closing_reference AS text),
    closed_by = :closed_by,
    closing_reason = :reason,
    closed_at = CAST(:now AS timestamptz)
  WHERE freeze_id = CAST(:freeze_id AS bigint) AND closed_at IS NULL AND kind <> 'BACKJOB'
  RETURNING freeze_id, hold_id
),

resumed AS (
  UPDATE buffer.unsettled_hold
  SET state = CASE
    WHEN EXISTS (
      SELECT FROM buffer.hold_freeze AS other
      WHERE
        other.hold_id = unsettled_hold.hold_id
        AND other.closed_at IS NULL
        AND other.freeze_id <> CAST(:freeze_id AS bigint)
    ) THEN 'FROZEN'
    ELSE 'BUFFERED'
  END
  -- So that it is looked up, however few holds the planner believes to wait.
  WHERE unsettled_hold.hold_id = any(ARRAY(SELECT hold_id FROM closed)) AND unsettled_hold.state = 'FROZEN'
  RETURNING
    unsettled_hold.hold_id,
    unsettled_hold.state,
    unsettled_hold.payee_wallet_id,
    unsettled_hold.currency,
    unsettled_hold.amount_minor,
    unsettled_hold.release_date
),

told AS (
  INSERT INTO buffer.notification (
    type, owner, hold_id, currency, amount_minor, release_date, created_at
  )
  SELECT
    'PAYMENT_RESUMED',
    payee.owner,
    resumed.hold_id,
    resumed.currency,
    resumed.amount_minor,
    resumed.release_date,
    CAST(:now AS timestamptz)
  FROM resumed
  INNER JOIN buffer.wallet AS payee ON resumed.payee_wallet_id = payee.wallet_id
  WHERE resumed.state = 'BUFFERED'
)

SELECT
  closed.freeze_id,
  closed.hold_id,
  resumed.state
FROM closed
LEFT JOIN resumed ON closed.hold_id = resumed.hold_id
