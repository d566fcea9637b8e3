-- BUFFERED | FROZEN -> FROZEN for all holds that wait for the owner, in all currencies. The caller has locked
-- the owner, these holds and the owner's wallets, so that no hold is added meanwhile.
-- Opens the owner's freeze, and a freeze of each hold that belongs to it. Names it in the owner's wallets,
-- where intake finds it. Every hold's row is written, even if it was FROZEN already: a REPEATABLE READ
-- transaction that decides from an older snapshot must fail with a serialization error.
-- The time is linear in the number of holds, whatever the planner expects: each hold is looked up by an array
-- of ids, and no two intermediate results are joined.
WITH
waiting AS MATERIALIZED (
  SELECT buffer.waiting_holds(CAST(:owner AS text)) AS hold_id
),

-- Two updates, for BUFFERED and for FROZEN holds, so that the holds that were BUFFERED are known without a join.
-- `|| ''`: PostgreSQL 15 would otherwise read the index of all BUFFERED holds, where it expects few.
frozen AS (
  UPDATE buffer.unsettled_hold
  SET state = 'FROZEN'
  WHERE
    hold_id = any(ARRAY(SELECT waiting.hold_id FROM waiting))
    AND state || '' = 'BUFFERED'
  RETURNING
    hold_id,
    kind,
    currency,
    amount_minor
),

frozen_already AS (
  UPDATE buffer.unsettled_hold
  SET state = 'FROZEN'
  WHERE
    hold_id = any(ARRAY(SELECT waiting.hold_id FROM waiting))
    AND state = 'FROZEN'
  RETURNING hold_id
),

opened AS (
  INSERT INTO buffer.owner_freeze (
    owner, kind, reference, opened_by, reason, payee_text, opened_at, holds_frozen
  )
  SELECT
    CAST(:owner AS text),
    :kind,
    CAST(:reference AS text),
    :opened_by,
    :reason,
    CAST(:payee_text AS text),
    CAST(:now AS timestamptz),
    (SELECT count(*) FROM frozen) + (SELECT count(*) FROM frozen_already)
  RETURNING owner_freeze_id, holds_frozen
),

named AS (
  UPDATE buffer.owner
  SET owner_freeze_id = (SELECT opened.owner_freeze_id FROM opened)
  WHERE owner.owner = CAST(:owner AS text)
),

marked AS (
  UPDATE buffer.wallet
  SET owner_freeze_id = (SELECT opened.owner_freeze_id FROM opened)
  WHERE wallet.owner = CAST(:owner AS text)
),

covered AS (
  INSERT INTO buffer.hold_freeze (hold_id, kind, owner_freeze_id, opened_by, reason, opened_at)
  SELECT
    either.hold_id,
    :kind,
    (SELECT opened.owner_freeze_id FROM opened),
    :opened_by,
    :reason,
    CAST(:now AS timestamptz)
  FROM (
    SELECT hold_id FROM frozen
    UNION ALL
    SELECT hold_id FROM frozen_already
  ) AS either
  ORDER BY either.hold_id
),

notified AS (
  INSERT INTO buffer.notification (type, owner, hold_id, currency, amount_minor, created_at)
  SELECT
    'PAYMENT_FROZEN',
    CAST(:owner AS text),
    hold_id,
    currency,
    amount_minor,
    CAST(:now AS timestamptz)
  FROM frozen
  WHERE kind = 'PAYEE' OR buffer.notifies_of(hold_id, kind, CAST(:owner AS text))
  ORDER BY hold_id
)

SELECT
  owner_freeze_id,
  holds_frozen
FROM opened
