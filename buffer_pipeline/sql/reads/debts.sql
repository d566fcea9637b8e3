-- Of the debts :ids those that match, with their owners, and who has taken the money back and why. Reads
-- only; at most as many rows as ids.
SELECT
  debt.debt_id,
  debt.clawback_id,
  debt.hold_id,
  debtor.owner,
  creditor.owner AS creditor,
  debt.currency,
  currency.places,
  debt.amount_minor,
  debt.outstanding_minor,
  debt.opened_at,
  debt.closed_at,
  opening.source AS by,
  opening.reason,
  forgiving.source AS forgiven_by,
  forgiving.reason AS forgiving_reason
FROM buffer.debt
INNER JOIN buffer.wallet AS debtor ON debt.wallet_id = debtor.wallet_id
INNER JOIN buffer.currency ON debt.currency = currency.currency
INNER JOIN buffer.batch AS opening ON debt.clawback_id = opening.batch_id
LEFT JOIN buffer.wallet AS creditor ON debt.creditor_wallet_id = creditor.wallet_id
LEFT JOIN buffer.batch AS forgiving ON debt.forgiven_id = forgiving.batch_id
WHERE
  debt.debt_id = any(CAST(:ids AS bigint[]))
  AND (debt.outstanding_minor > 0 OR NOT CAST(:only_open AS boolean))
