-- BUFFERED | FROZEN -> FROZEN for :hold_ids. The caller has locked their job and then these holds.
-- Opens the backjob, one freeze per hold, and writes the notifications of both. Every hold's row is written,
-- even if it was FROZEN already: a REPEATABLE READ transaction that decides from an older snapshot must fail
-- with a serialization error.
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

-- Two updates, for BUFFERED and for FROZEN holds, so that the holds that were BUFFERED are known without a join.
frozen AS (
  UPDATE buffer.unsettled_hold
  SET state = 'FROZEN'
  WHERE hold_id = any(CAST(:hold_ids AS bigint[])) AND state = 'BUFFERED'
  RETURNING
    hold_id,
    kind,
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

notified_of_freeze AS (
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
  WHERE
    CAST(:notify AS boolean)
    AND (frozen.kind = 'PAYEE' OR buffer.notifies_of(frozen.hold_id, frozen.kind, payee.owner))
  ORDER BY frozen.hold_id
),

notified_of_backjob AS (
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
      WHERE hold.hold_id = any(CAST(:hold_ids AS bigint[])) AND hold.kind IN ('PAYEE', 'RESERVE')
    ))
    AND CAST(:notify AS boolean)
)

SELECT backjob_id FROM opened
