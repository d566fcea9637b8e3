-- What fees, taxes and reserves :source released since :since, by kind and currency; no rows without such a share.
-- The condition on the transaction's recorded_at only lets the index find the batches' transactions. The holds are
-- looked up only if there are shares at all: max() finds this by the index of shares.
SELECT
  kind,
  currency,
  sum(amount_minor) AS amount_minor
FROM (
  SELECT
    transaction.currency,
    transaction.amount_minor,
    -- A look-up for each row: the planner might read all holds for a join.
    (
      SELECT hold.kind FROM buffer.hold
      WHERE hold.hold_id = transaction.hold_id
    ) AS kind
  FROM buffer.batch
  INNER JOIN buffer.transaction ON batch.batch_id = transaction.batch_id
  WHERE
    (SELECT max(share.earning_id) FROM buffer.hold AS share) IS NOT NULL
    AND batch.source = CAST(:source AS text)
    AND batch.recorded_at >= CAST(:since AS timestamptz)
    AND transaction.recorded_at >= CAST(:since AS timestamptz)
    AND transaction.type || '' IN ('EARNING', 'EARNING_PART')
  OFFSET 0 -- noqa: AM09
) AS released
WHERE kind <> 'PAYEE'
GROUP BY kind, currency
ORDER BY kind, currency
