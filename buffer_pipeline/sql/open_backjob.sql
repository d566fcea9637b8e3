-- BUFFERED | FROZEN -> FROZEN for :hold_ids, which this transaction has locked, and their job.
-- Opens the backjob, one freeze a hold, and the notifications of both. The holds' rows are written whatever
-- their state was: a REPEATABLE READ transaction that decides on older freezes must collide with this one.
WITH
opened AS (
  INSERT INTO buffer.backjob (reference, job, requested_by, reason, requested_at)
  VALUES (CAST(:reference AS text), :job, :requested_by, :reason, CAST(:requested_at AS timestamptz))
  RETURNING backjob_id, job
),

named AS (
  UPDATE buffer.job
  SET open_backjob_id = opened.backjob_id
  FROM opened
  WHERE job.job = opened.job
),

-- Buffered and frozen holds apart, so that who was buffered is known without a join.
frozen AS (
  UPDATE buffer.unsettled_hold
  SET state = 'FROZEN'
  WHERE hold_id = any(CAST(:hold_ids AS bigint[])) AND state = 'BUFFERED'
  RETURNING
    hold_id,
    payee_wallet_id,
    currency,
    amount_minor
),

frozen_already AS (
  UPDATE buffer.unsettled_hold
  SET state = 'FROZEN'
  WHERE hold_id = any(CAST(:hold_ids AS bigint[])) AND state = 'FROZEN'
),

covered AS (
  INSERT INTO buffer.hold_freeze (hold_id, kind, backjob_id, opened_by, reason, opened_at)
  SELECT
    covered_hold.hold_id,
    'BACKJOB',
    opened.backjob_id,
    :requested_by,
    :reason,
    CAST(:requested_at AS timestamptz)
  FROM pg_catalog.unnest(CAST(:hold_ids AS bigint[])) AS covered_hold (hold_id)
  CROSS JOIN opened
  ORDER BY covered_hold.hold_id
  RETURNING hold_id
),

told_of_freeze AS (
  INSERT INTO buffer.notification (
    type, owner, hold_id, backjob_id, currency, amount_minor, created_at
  )
  SELECT
    'PAYMENT_FROZEN',
    payee.owner,
    frozen.hold_id,
    opened.backjob_id,
    frozen.currency,
    frozen.amount_minor,
    CAST(:now AS timestamptz)
  FROM frozen
  INNER JOIN buffer.wallet AS payee ON frozen.payee_wallet_id = payee.wallet_id
  CROSS JOIN opened
  WHERE CAST(:notify AS boolean)
  ORDER BY frozen.hold_id
),

told_of_backjob AS (
  INSERT INTO buffer.notification (type, owner, backjob_id, created_at)
  SELECT DISTINCT
    'BACKJOB_RECEIVED',
    payee.owner,
    opened.backjob_id,
    CAST(:now AS timestamptz)
  FROM buffer.wallet AS payee
  CROSS JOIN opened
  WHERE
    payee.wallet_id = any(ARRAY(
      SELECT hold.payee_wallet_id
      FROM buffer.hold
      WHERE hold.hold_id = any(CAST(:hold_ids AS bigint[]))
    ))
    AND CAST(:notify AS boolean)
)

SELECT backjob_id FROM opened
