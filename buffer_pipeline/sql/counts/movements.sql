-- Whatever the hours from :since to before :until count, a row each and of one width: see movements.py.
-- kind: 1 added, 2 released on schedule, 3 released early, 4 refunded, 5 freeze opened, 6 freeze closed.
SELECT
  transaction.recorded_at AS moment,
  coalesce(transaction.release_date, transaction.recorded_at) AS release_date,
  transaction.amount_minor,
  coalesce(transaction.from_wallet_id, transaction.to_wallet_id) AS payee_wallet_id,
  CASE
    WHEN transaction.type = 'PENDING_EARNING' THEN 1
    WHEN transaction.type = 'REFUND' THEN 4
    WHEN batch.kind = 'EARLY' THEN 3
    ELSE 2
  END AS kind,
  transaction.currency
FROM buffer.transaction
LEFT JOIN buffer.batch ON transaction.batch_id = batch.batch_id
WHERE
  transaction.recorded_at >= CAST(:since AS timestamptz)
  AND transaction.recorded_at < CAST(:until AS timestamptz)
  AND transaction.hold_id IS NOT NULL
UNION ALL
SELECT
  hold_freeze.opened_at,
  hold_freeze.opened_at,
  CAST(0 AS bigint),
  hold.payee_wallet_id,
  5,
  hold.currency
FROM buffer.hold_freeze
INNER JOIN buffer.hold ON hold_freeze.hold_id = hold.hold_id
WHERE
  hold_freeze.opened_at >= CAST(:since AS timestamptz)
  AND hold_freeze.opened_at < CAST(:until AS timestamptz)
UNION ALL
SELECT
  hold_freeze.closed_at,
  hold_freeze.closed_at,
  CAST(0 AS bigint),
  hold.payee_wallet_id,
  6,
  hold.currency
FROM buffer.hold_freeze
INNER JOIN buffer.hold ON hold_freeze.hold_id = hold.hold_id
WHERE
  hold_freeze.closed_at >= CAST(:since AS timestamptz)
  AND hold_freeze.closed_at < CAST(:until AS timestamptz)
