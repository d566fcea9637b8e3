-- What is outstanding of a debt is its amount less what was recovered and written off. A debt whose creditor paid at
-- once has an ADVANCE of all of it: a bank has always paid. What was written off is in the batch that has forgiven it.
WITH
said AS (
  SELECT
    debt_id,
    coalesce(sum(amount_minor) FILTER (WHERE type = 'ADVANCE'), 0) AS advanced_minor,
    coalesce(sum(amount_minor) FILTER (WHERE type IN ('RECOVERY', 'WRITE_OFF')), 0) AS paid_minor,
    min(batch_id) FILTER (WHERE type = 'WRITE_OFF') AS written_off_id
  FROM buffer.transaction
  WHERE debt_id IS NOT NULL
  GROUP BY debt_id
)

SELECT
  coalesce(debt.debt_id, said.debt_id) AS debt_id,
  debt.wallet_id,
  debt.currency,
  debt.amount_minor,
  debt.outstanding_minor,
  coalesce(said.paid_minor, 0) AS transactions_paid_minor,
  coalesce(said.advanced_minor, 0) AS transactions_advanced_minor,
  debt.forgiven_id,
  said.written_off_id
FROM buffer.debt
FULL JOIN said ON debt.debt_id = said.debt_id
LEFT JOIN buffer.batch ON debt.clawback_id = batch.batch_id
WHERE
  debt.debt_id IS NULL
  OR batch.kind IS DISTINCT FROM 'CLAWBACK'
  OR batch.recorded_at <> debt.opened_at
  OR debt.creditor_wallet_id IS DISTINCT FROM coalesce(
    batch.advancer_wallet_id,
    CASE batch.paid_to WHEN 'PAYER' THEN (
      SELECT hold.payer_wallet_id FROM buffer.hold
      WHERE hold.hold_id = debt.hold_id
    ) END
  )
  OR debt.amount_minor - coalesce(said.paid_minor, 0) <> debt.outstanding_minor
  OR coalesce(said.advanced_minor, 0)
  <> CASE WHEN batch.advancer_wallet_id IS NOT NULL OR batch.paid_to = 'BANK' THEN debt.amount_minor ELSE 0 END
  OR debt.forgiven_id IS DISTINCT FROM said.written_off_id
ORDER BY debt_id
