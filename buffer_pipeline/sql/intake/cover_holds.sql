-- BUFFERED -> FROZEN for :hold_ids, which this transaction has added to jobs with an open backjob
-- (:backjob_ids, one for each hold). The jobs are locked.
WITH
late AS MATERIALIZED (
  SELECT *
  FROM unnest(CAST(:hold_ids AS bigint[]), CAST(:backjob_ids AS bigint[])) AS late_hold (hold_id, backjob_id)
),

frozen AS (
  UPDATE buffer.unsettled_hold
  SET state = 'FROZEN'
  FROM late
  WHERE unsettled_hold.hold_id = late.hold_id
  RETURNING
    unsettled_hold.hold_id,
    unsettled_hold.kind,
    unsettled_hold.payee_wallet_id,
    unsettled_hold.currency,
    unsettled_hold.amount_minor,
    late.backjob_id
),

covered AS (
  INSERT INTO buffer.hold_freeze (hold_id, kind, backjob_id, opened_by, reason, opened_at)
  SELECT
    frozen.hold_id,
    'BACKJOB',
    frozen.backjob_id,
    backjob.requested_by,
    backjob.reason,
    CAST(:now AS timestamptz)
  FROM frozen
  INNER JOIN buffer.backjob ON frozen.backjob_id = backjob.backjob_id
  ORDER BY frozen.hold_id
),

notified AS (
  INSERT INTO buffer.notification (
    type, owner, hold_id, backjob_id, currency, amount_minor, created_at
  )
  SELECT
    'PAYMENT_FROZEN',
    payee.owner,
    frozen.hold_id,
    frozen.backjob_id,
    frozen.currency,
    frozen.amount_minor,
    CAST(:now AS timestamptz)
  FROM frozen
  INNER JOIN buffer.wallet AS payee ON frozen.payee_wallet_id = payee.wallet_id
  WHERE
    CAST(:notify AS boolean)
    AND (frozen.kind = 'PAYEE' OR buffer.notifies_of(frozen.hold_id, frozen.kind, payee.owner))
  ORDER BY frozen.hold_id
)

SELECT count(*) AS holds FROM frozen
