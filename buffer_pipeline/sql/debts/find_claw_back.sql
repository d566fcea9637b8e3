-- The batch with this reference, and if it is a claw-back, what it took and what it left as debts. Reads only.
SELECT
  batch.batch_id,
  batch.kind,
  batch.source,
  batch.reason,
  batch.reference,
  batch.named_hold_id,
  batch.paid_to,
  advancer.owner AS advanced_by,
  hold.currency,
  CAST(coalesce(asked.amount_minor, 0) AS bigint) AS amount_minor,
  CAST(coalesce(owed.amount_minor, 0) AS bigint) AS debt_minor,
  coalesce(owed.debt_ids, CAST(ARRAY[] AS bigint[])) AS debt_ids
FROM buffer.batch
LEFT JOIN buffer.wallet AS advancer ON batch.advancer_wallet_id = advancer.wallet_id
LEFT JOIN buffer.hold ON batch.named_hold_id = hold.hold_id
CROSS JOIN LATERAL (
  SELECT sum(clawback_share.amount_minor) AS amount_minor
  FROM buffer.clawback_share
  WHERE clawback_share.clawback_id = batch.batch_id
) AS asked
CROSS JOIN LATERAL (
  SELECT
    sum(debt.amount_minor) AS amount_minor,
    pg_catalog.array_agg(debt.debt_id ORDER BY debt.debt_id) AS debt_ids
  FROM buffer.debt
  WHERE debt.clawback_id = batch.batch_id
) AS owed
WHERE batch.reference = CAST(:reference AS text)
