-- BUFFERED | FROZEN -> FROZEN with one more freeze, of kind ADMIN or RISK.
-- No row comes back when the hold does not exist or is settled. The hold's row is written whatever its
-- state was: a REPEATABLE READ transaction that decides on older freezes must collide with this one.
WITH
target AS MATERIALIZED (
  SELECT
    hold_id,
    state
  FROM buffer.unsettled_hold
  WHERE hold_id = CAST(:hold_id AS bigint)
  FOR NO KEY UPDATE
),

frozen AS (
  UPDATE buffer.unsettled_hold
  SET state = 'FROZEN'
  FROM target
  WHERE unsettled_hold.hold_id = target.hold_id
  RETURNING
    unsettled_hold.hold_id,
    unsettled_hold.payee_wallet_id,
    unsettled_hold.currency,
    unsettled_hold.amount_minor,
    target.state AS state_before
),

opened AS (
  INSERT INTO buffer.hold_freeze (hold_id, kind, reference, opened_by, reason, opened_at)
  SELECT
    hold_id,
    :kind,
    CAST(:reference AS text),
    :opened_by,
    :reason,
    CAST(:now AS timestamptz)
  FROM target
  RETURNING freeze_id
),

told AS (
  INSERT INTO buffer.notification (type, owner, hold_id, currency, amount_minor, created_at)
  SELECT
    'PAYMENT_FROZEN',
    payee.owner,
    frozen.hold_id,
    frozen.currency,
    frozen.amount_minor,
    CAST(:now AS timestamptz)
  FROM frozen
  INNER JOIN buffer.wallet AS payee ON frozen.payee_wallet_id = payee.wallet_id
  WHERE frozen.state_before = 'BUFFERED' AND CAST(:notify AS boolean)
)

SELECT freeze_id FROM opened
