-- BUFFERED | FROZEN -> FROZEN with one more freeze, of kind ADMIN or RISK, for each of :hold_ids: one hold,
-- or the unsettled shares of the earning :earning_id. The caller has locked them.
-- The freeze of the first hold has the reference. The others name that freeze. Only the freezes of :told_ids,
-- the shares of the payee, have the text for the payee: a fee's owner must not read it. Every hold's row is
-- written, even if it was FROZEN already: a REPEATABLE READ transaction that decides from an older snapshot
-- must fail with a serialization error.
-- Returns the first freeze; no row if one of the holds is settled, which the caller must undo.
WITH
-- Two updates, for BUFFERED and for FROZEN holds, so that the holds that were BUFFERED are known without a
-- join.
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
  RETURNING hold_id
),

opened AS (
  INSERT INTO buffer.hold_freeze (
    hold_id, kind, earning_id, reference, opened_by, reason, payee_text, opened_at
  )
  SELECT
    (CAST(:hold_ids AS bigint[]))[1],
    :kind,
    CAST(:earning_id AS bigint),
    CAST(:reference AS text),
    :opened_by,
    :reason,
    CAST(:payee_text AS text),
    CAST(:now AS timestamptz)
  WHERE
    (SELECT count(*) FROM frozen) + (SELECT count(*) FROM frozen_already)
    = pg_catalog.cardinality(CAST(:hold_ids AS bigint[]))
  RETURNING freeze_id
),

opened_of_others AS (
  INSERT INTO buffer.hold_freeze (
    hold_id, kind, earning_id, earning_freeze_id, opened_by, reason, payee_text, opened_at
  )
  SELECT
    share.hold_id,
    :kind,
    CAST(:earning_id AS bigint),
    opened.freeze_id,
    :opened_by,
    :reason,
    CASE WHEN share.hold_id = any(CAST(:told_ids AS bigint[])) THEN CAST(:payee_text AS text) END,
    CAST(:now AS timestamptz)
  FROM pg_catalog.unnest((CAST(:hold_ids AS bigint[]))[2:]) AS share (hold_id)
  CROSS JOIN opened
  ORDER BY share.hold_id
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

SELECT freeze_id FROM opened
