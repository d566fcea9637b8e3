-- FROZEN -> BUFFERED, with the date unchanged, for the holds that no other freeze covers; FROZEN -> FROZEN for
-- the others. All holds that the owner's freeze covers. The caller has locked the owner, all holds that wait
-- for the owner, and the owner's wallets, so that no hold is added meanwhile.
-- Returns no row if the owner's freeze is closed already.
-- Every hold's row is written, even if another freeze covers it: a transaction that decides from an older
-- snapshot must fail with a serialization error.
-- The time is linear in the number of holds, whatever the planner expects: each hold is looked up by an array
-- of ids, and no two intermediate results are joined.
WITH
closed AS (
  UPDATE buffer.hold_freeze
  SET
    closed_by = :closed_by,
    closing_reason = :reason,
    closed_at = CAST(:now AS timestamptz)
  WHERE owner_freeze_id = CAST(:owner_freeze_id AS bigint) AND closed_at IS NULL
  RETURNING hold_id
),

-- The holds that another freeze covers.
covered_still AS MATERIALIZED (
  SELECT hold_id
  FROM buffer.hold_freeze
  WHERE
    hold_id = any(ARRAY(SELECT closed.hold_id FROM closed))
    AND closed_at IS NULL
    AND owner_freeze_id IS DISTINCT FROM CAST(:owner_freeze_id AS bigint)
),

frozen_still AS (
  UPDATE buffer.unsettled_hold
  SET state = 'FROZEN'
  WHERE hold_id = any(ARRAY(SELECT covered_still.hold_id FROM covered_still)) AND state = 'FROZEN'
),

resumed AS (
  UPDATE buffer.unsettled_hold
  SET state = 'BUFFERED'
  WHERE
    hold_id = any(ARRAY(
      SELECT closed.hold_id FROM closed
      EXCEPT
      SELECT covered_still.hold_id FROM covered_still
    ))
    AND state = 'FROZEN'
  RETURNING
    hold_id,
    kind,
    currency,
    amount_minor,
    release_date
),

ended AS (
  UPDATE buffer.owner_freeze
  SET
    closing_reference = CAST(:closing_reference AS text),
    closed_by = :closed_by,
    closing_reason = :reason,
    closed_at = CAST(:now AS timestamptz),
    holds_resumed = (SELECT count(*) FROM resumed)
  WHERE owner_freeze_id = CAST(:owner_freeze_id AS bigint) AND closed_at IS NULL
  RETURNING owner_freeze_id, holds_resumed
),

named AS (
  UPDATE buffer.owner
  SET owner_freeze_id = NULL
  WHERE owner.owner = CAST(:owner AS text)
),

marked AS (
  UPDATE buffer.wallet
  SET owner_freeze_id = NULL
  WHERE wallet.owner = CAST(:owner AS text)
),

notified AS (
  INSERT INTO buffer.notification (
    type, owner, hold_id, currency, amount_minor, release_date, created_at
  )
  SELECT
    'PAYMENT_RESUMED',
    CAST(:owner AS text),
    hold_id,
    currency,
    amount_minor,
    release_date,
    CAST(:now AS timestamptz)
  FROM resumed
  WHERE kind = 'PAYEE' OR buffer.notifies_of(hold_id, kind, CAST(:owner AS text))
  ORDER BY hold_id
)

SELECT
  owner_freeze_id,
  holds_resumed
FROM ended
