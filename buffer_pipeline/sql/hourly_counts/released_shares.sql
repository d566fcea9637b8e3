-- What movements.sql returns as released of fees, taxes and reserves, once more by kind of share; packed as there.
-- kind: 8 fee, 9 tax, 10 reserve. Each released hold is looked up, so this is asked only where there are shares.
-- `|| ''`: the planner would otherwise read the index of all EARNINGs, to combine it with that of the time.
SELECT
  currency,
  array_agg(recorded_at) AS moments,
  array_agg(recorded_at) AS release_dates,
  array_agg(amount_minor) AS amounts_minor,
  array_agg(payee_wallet_id) AS payee_wallet_ids,
  array_agg(CASE share WHEN 'FEE' THEN 8 WHEN 'TAX' THEN 9 ELSE 10 END) AS kinds
FROM (
  SELECT
    transaction.transaction_id >> 16 AS block,
    transaction.currency,
    transaction.recorded_at,
    transaction.amount_minor,
    transaction.to_wallet_id AS payee_wallet_id,
    -- A look-up for each row: the planner might read all holds for a join.
    (
      SELECT hold.kind FROM buffer.hold
      WHERE hold.hold_id = transaction.hold_id
    ) AS share
  FROM buffer.transaction
  WHERE
    transaction.recorded_at >= CAST(:since AS timestamptz)
    AND transaction.recorded_at < CAST(:until AS timestamptz)
    AND transaction.type || '' IN ('EARNING', 'EARNING_PART')
  OFFSET 0 -- noqa: AM09
) AS released
WHERE share <> 'PAYEE'
GROUP BY block, currency
