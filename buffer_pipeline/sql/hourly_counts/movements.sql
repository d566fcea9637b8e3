-- What the hours from :since to before :until count, packed: a row has at most 65,536 movements of one
-- currency, as arrays of the same length. So neither the server nor Python handles movements one by one (see
-- movements.py).
-- kind: 1 added, 2 released on schedule, 3 released early, 4 refunded, 5 freeze opened, 6 freeze closed, 7 a part
-- released early.
-- OFFSET 0 keeps the planner from expecting one block per transaction_id, and so from sorting.
SELECT
  currency,
  array_agg(recorded_at) AS moments,
  array_agg(release_date) AS release_dates,
  array_agg(amount_minor) AS amounts_minor,
  array_agg(payee_wallet_id) AS payee_wallet_ids,
  array_agg(kind) AS kinds
FROM (
  SELECT
    transaction.transaction_id >> 16 AS block,
    transaction.currency,
    transaction.recorded_at,
    coalesce(transaction.release_date, transaction.recorded_at) AS release_date,
    transaction.amount_minor,
    coalesce(transaction.from_wallet_id, transaction.to_wallet_id) AS payee_wallet_id,
    CASE
      WHEN transaction.type = 'PENDING_EARNING' THEN 1
      WHEN transaction.type = 'REFUND' THEN 4
      WHEN transaction.type = 'EARNING_PART' THEN 7
      WHEN batch.kind = 'EARLY' THEN 3
      ELSE 2
    END AS kind
  FROM buffer.transaction
  LEFT JOIN buffer.batch ON transaction.batch_id = batch.batch_id
  WHERE
    transaction.recorded_at >= CAST(:since AS timestamptz)
    AND transaction.recorded_at < CAST(:until AS timestamptz)
    AND transaction.hold_id IS NOT NULL
    AND transaction.type NOT IN ('CLAWBACK', 'ADVANCE')
  OFFSET 0 -- noqa: AM09
) AS moved
GROUP BY block, currency
UNION ALL
SELECT
  hold.currency,
  array_agg(hold_freeze.opened_at),
  array_agg(hold_freeze.opened_at),
  array_agg(CAST(0 AS bigint)),
  array_agg(hold.payee_wallet_id),
  array_agg(5)
FROM buffer.hold_freeze
INNER JOIN buffer.hold ON hold_freeze.hold_id = hold.hold_id
WHERE
  hold_freeze.opened_at >= CAST(:since AS timestamptz)
  AND hold_freeze.opened_at < CAST(:until AS timestamptz)
GROUP BY hold_freeze.freeze_id >> 16, hold.currency
UNION ALL
SELECT
  hold.currency,
  array_agg(hold_freeze.closed_at),
  array_agg(hold_freeze.closed_at),
  array_agg(CAST(0 AS bigint)),
  array_agg(hold.payee_wallet_id),
  array_agg(6)
FROM buffer.hold_freeze
INNER JOIN buffer.hold ON hold_freeze.hold_id = hold.hold_id
WHERE
  hold_freeze.closed_at >= CAST(:since AS timestamptz)
  AND hold_freeze.closed_at < CAST(:until AS timestamptz)
GROUP BY hold_freeze.freeze_id >> 16, hold.currency
