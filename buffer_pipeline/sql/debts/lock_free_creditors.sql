-- Locks the creditors of :wallet_ids, which this transaction has locked, but skips those that another transaction has
-- locked: it never waits. Returns which of :wallet_ids have a creditor that was skipped.
WITH
locked AS MATERIALIZED (
  SELECT wallet_id
  FROM buffer.wallet
  WHERE wallet_id = any(ARRAY(
    SELECT debt.creditor_wallet_id
    FROM buffer.debt
    WHERE
      debt.wallet_id = any(CAST(:wallet_ids AS bigint[]))
      AND debt.outstanding_minor > 0
      AND debt.creditor_wallet_id IS NOT NULL
  ))
  ORDER BY wallet_id
  FOR NO KEY UPDATE SKIP LOCKED
)

SELECT DISTINCT debt.wallet_id
FROM buffer.debt
WHERE
  debt.wallet_id = any(CAST(:wallet_ids AS bigint[]))
  AND debt.outstanding_minor > 0
  AND debt.creditor_wallet_id IS NOT NULL
  AND debt.creditor_wallet_id <> ALL(ARRAY(SELECT locked.wallet_id FROM locked))
ORDER BY debt.wallet_id
