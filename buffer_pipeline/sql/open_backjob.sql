-- BUFFERED | FROZEN -> FROZEN for :hold_ids, which this transaction has locked.
-- Opens the backjob, one freeze a hold, and the notifications of both. The holds' rows are written whatever
-- their state was: a REPEATABLE READ transaction that decides on older freezes must collide with this one.
WITH
opened AS (
  INSERT INTO buffer.backjob (reference, job, requested_by, reason, requested_at)
  VALUES (CAST(:reference AS text), :job, :requested_by, :reason, CAST(:requested_at AS timestamptz))
  RETURNING backjob_id
),

before AS MATERIALIZED (
  SELECT
    hold_id,
    state
  FROM buffer.unsettled_hold
  WHERE hold_id = any(CAST(:hold_ids AS bigint[]))
),

frozen AS (
  UPDATE buffer.unsettled_hold
  SET state = 'FROZEN'
  FROM before
  WHERE unsettled_hold.hold_id = before.hold_id
  RETURNING
    unsettled_hold.hold_id,
    unsettled_hold.payee_wallet_id,
    unsettled_hold.currency,
    unsettled_hold.amount_minor,
    before.state AS state_before
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
  WHERE frozen.state_before = 'BUFFERED' AND CAST(:notify AS boolean)
  ORDER BY frozen.hold_id
),

told_of_backjob AS (
  INSERT INTO buffer.notification (type, owner, backjob_id, created_at)
  SELECT DISTINCT
    'BACKJOB_RECEIVED',
    payee.owner,
    opened.backjob_id,
    CAST(:now AS timestamptz)
  FROM buffer.hold
  INNER JOIN buffer.wallet AS payee ON hold.payee_wallet_id = payee.wallet_id
  CROSS JOIN opened
  WHERE hold.hold_id = any(CAST(:hold_ids AS bigint[])) AND CAST(:notify AS boolean)
)

SELECT backjob_id FROM opened
