-- BUFFERED | FROZEN -> FROZEN for those of :hold_ids whose payee is frozen. This transaction has added the
-- holds, and has written their payees' wallets, so that nobody can freeze or unfreeze the payees meanwhile.
-- Each gets a freeze that belongs to the owner's. Returns their ids, as one array (NULL if there are none).
WITH
late AS MATERIALIZED (
  SELECT
    unsettled_hold.hold_id,
    payee.owner_freeze_id
  FROM buffer.unsettled_hold
  INNER JOIN buffer.wallet AS payee ON unsettled_hold.payee_wallet_id = payee.wallet_id
  WHERE unsettled_hold.hold_id = any(CAST(:hold_ids AS bigint[])) AND payee.owner_freeze_id IS NOT NULL
),

frozen AS (
  UPDATE buffer.unsettled_hold
  SET state = 'FROZEN'
  WHERE hold_id = any(ARRAY(SELECT hold_id FROM late)) AND state = 'BUFFERED'
  RETURNING
    hold_id,
    kind,
    payee_wallet_id,
    currency,
    amount_minor
),

covered AS (
  INSERT INTO buffer.hold_freeze (hold_id, kind, owner_freeze_id, opened_by, reason, opened_at)
  SELECT
    late.hold_id,
    owner_freeze.kind,
    late.owner_freeze_id,
    owner_freeze.opened_by,
    owner_freeze.reason,
    CAST(:now AS timestamptz)
  FROM late
  INNER JOIN buffer.owner_freeze ON late.owner_freeze_id = owner_freeze.owner_freeze_id
  ORDER BY late.hold_id
),

notified AS (
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
  WHERE
    CAST(:notify AS boolean)
    AND (frozen.kind = 'PAYEE' OR buffer.notifies_of(frozen.hold_id, frozen.kind, payee.owner))
  ORDER BY frozen.hold_id
)

SELECT pg_catalog.array_agg(hold_id) AS hold_ids
FROM late
