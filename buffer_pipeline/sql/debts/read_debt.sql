-- A debt, with its owners and what is outstanding. Reads only; the caller has locked the debtor's wallet, under whose
-- lock a debt changes, or reads it to learn which wallets to lock.
SELECT
  debt.debt_id,
  debt.wallet_id,
  debt.creditor_wallet_id,
  debtor.owner,
  debt.currency,
  debt.amount_minor,
  debt.outstanding_minor,
  debt.opened_at,
  debt.closed_at
FROM buffer.debt
INNER JOIN buffer.wallet AS debtor ON debt.wallet_id = debtor.wallet_id
WHERE debt.debt_id = CAST(:debt_id AS bigint)
