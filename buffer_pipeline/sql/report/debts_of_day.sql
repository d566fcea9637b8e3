-- Debts by currency and creditor at :day_end: how many are open, what is outstanding, and what was opened, recovered
-- and forgiven since :day_start. The largest sum comes first. A creditor that is NULL is a bank.
-- Reads the debts that were opened before :day_end, and their transactions by the index of debts.
WITH
paid AS (
  SELECT
    debt_id,
    CAST(sum(amount_minor) AS bigint) AS paid_minor,
    sum(amount_minor) FILTER (
      WHERE type = 'RECOVERY' AND recorded_at >= CAST(:day_start AS timestamptz)
    ) AS recovered_minor,
    sum(amount_minor) FILTER (
      WHERE type = 'WRITE_OFF' AND recorded_at >= CAST(:day_start AS timestamptz)
    ) AS forgiven_minor
  FROM buffer.transaction
  WHERE
    debt_id IS NOT NULL
    AND type IN ('RECOVERY', 'WRITE_OFF')
    AND recorded_at < CAST(:day_end AS timestamptz)
  GROUP BY debt_id
),

of_creditor AS (
  SELECT
    debt.currency,
    debt.creditor_wallet_id,
    count(*) FILTER (WHERE debt.amount_minor > coalesce(paid.paid_minor, 0)) AS debts,
    sum(debt.amount_minor - coalesce(paid.paid_minor, 0)) AS outstanding_minor,
    count(*) FILTER (WHERE debt.opened_at >= CAST(:day_start AS timestamptz)) AS opened,
    coalesce(
      sum(debt.amount_minor) FILTER (WHERE debt.opened_at >= CAST(:day_start AS timestamptz)), 0
    ) AS opened_minor,
    coalesce(sum(paid.recovered_minor), 0) AS recovered_minor,
    coalesce(sum(paid.forgiven_minor), 0) AS forgiven_minor
  FROM buffer.debt
  LEFT JOIN paid ON debt.debt_id = paid.debt_id
  WHERE debt.opened_at < CAST(:day_end AS timestamptz)
  GROUP BY debt.currency, debt.creditor_wallet_id
)

SELECT
  of_creditor.currency,
  creditor.owner AS creditor,
  of_creditor.debts,
  CAST(of_creditor.outstanding_minor AS bigint) AS outstanding_minor,
  of_creditor.opened,
  CAST(of_creditor.opened_minor AS bigint) AS opened_minor,
  CAST(of_creditor.recovered_minor AS bigint) AS recovered_minor,
  CAST(of_creditor.forgiven_minor AS bigint) AS forgiven_minor
FROM of_creditor
LEFT JOIN buffer.wallet AS creditor ON of_creditor.creditor_wallet_id = creditor.wallet_id
ORDER BY of_creditor.outstanding_minor DESC, of_creditor.currency ASC, creditor.owner ASC NULLS FIRST
