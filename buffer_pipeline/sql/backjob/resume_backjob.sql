-- FROZEN -> BUFFERED for the backjob's holds that no other freeze covers; FROZEN -> FROZEN for the others.
-- The caller has locked the job and then the holds.
-- :state is REJECTED or WITHDRAWN. REJECTED has a :cooldown, which is added to the later of the release date
-- and the clock, but a hold whose rule has a cooldown gets that. WITHDRAWN has none, and the date is unchanged.
-- Returns no row if the backjob is not open.
-- Every hold's row is written, even if another freeze covers it: a transaction that decides from an older
-- snapshot must fail with a serialization error.
-- The time is linear in the number of holds, whatever the planner expects: each hold is looked up by an array
-- of ids, its rule by the id of the hold, and no two intermediate results are joined.
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
    release_date = CASE
      WHEN CAST(:cooldown AS interval) IS NULL THEN unsettled_hold.release_date
      ELSE
        greatest(unsettled_hold.release_date, CAST(:now AS timestamptz))
        + coalesce(
          (
            SELECT CAST(rule.cooldown_hours AS double precision) * interval '1 hour'
            FROM buffer.hold_rule AS rule
            WHERE rule.rule_id = (
              SELECT hold.rule_id FROM buffer.hold
              WHERE hold.hold_id = unsettled_hold.hold_id
            )
          ),
          CAST(:cooldown AS interval)
        )
    END
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
    unsettled_hold.kind,
    unsettled_hold.payee_wallet_id,
    unsettled_hold.currency,
    unsettled_hold.amount_minor,
    unsettled_hold.release_date
),

notified_of_resuming AS (
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
  WHERE resumed.kind = 'PAYEE' OR buffer.notifies_of(resumed.hold_id, resumed.kind, payee.owner)
  ORDER BY resumed.hold_id
),

notified_of_rejection AS (
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
      WHERE hold.hold_id = any(ARRAY(SELECT hold_id FROM closed)) AND hold.kind IN ('PAYEE', 'RESERVE')
    ))
)

SELECT backjob_id FROM decided
