-- FROZEN -> BUFFERED for the holds whose last open freeze is among :freeze_ids; FROZEN -> FROZEN for the others.
-- They are one freeze, or the freezes of an earning's shares, of which some may be closed. The caller has locked
-- the holds.
-- The first freeze that is closed gets the reference. Every hold's row is written even if another freeze covers
-- it: a transaction that decides from an older snapshot must fail with a serialization error.
-- Returns the holds whose freeze was closed, and their states; no row if all freezes were closed already.
WITH
closed AS (
  UPDATE buffer.hold_freeze
  SET
    closing_reference = CASE
      WHEN
        freeze_id = (
          SELECT min(still_open.freeze_id) FROM buffer.hold_freeze AS still_open
          WHERE still_open.freeze_id = any(CAST(:freeze_ids AS bigint[])) AND still_open.closed_at IS NULL
        )
        THEN CAST(:closing_reference AS text)
    END,
    closed_by = :closed_by,
    closing_reason = :reason,
    closed_at = CAST(:now AS timestamptz)
  WHERE
    freeze_id = any(CAST(:freeze_ids AS bigint[]))
    AND closed_at IS NULL
    AND kind <> 'BACKJOB'
    AND owner_freeze_id IS NULL
  RETURNING hold_id
),

resumed AS (
  UPDATE buffer.unsettled_hold
  SET state = CASE
    WHEN EXISTS (
      SELECT FROM buffer.hold_freeze AS other
      WHERE
        other.hold_id = unsettled_hold.hold_id
        AND other.closed_at IS NULL
        AND other.freeze_id <> all(CAST(:freeze_ids AS bigint[]))
    ) THEN 'FROZEN'
    ELSE 'BUFFERED'
  END
  -- An array, so that the hold is looked up by the index, even if the planner expects few waiting holds.
  WHERE unsettled_hold.hold_id = any(ARRAY(SELECT hold_id FROM closed)) AND unsettled_hold.state = 'FROZEN'
  RETURNING
    unsettled_hold.hold_id,
    unsettled_hold.state,
    unsettled_hold.kind,
    unsettled_hold.payee_wallet_id,
    unsettled_hold.currency,
    unsettled_hold.amount_minor,
    unsettled_hold.release_date
),

notified AS (
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
  WHERE
    resumed.state = 'BUFFERED'
    AND (resumed.kind = 'PAYEE' OR buffer.notifies_of(resumed.hold_id, resumed.kind, payee.owner))
  ORDER BY resumed.hold_id
)

SELECT
  closed.hold_id,
  resumed.state
FROM closed
LEFT JOIN resumed ON closed.hold_id = resumed.hold_id
ORDER BY closed.hold_id
