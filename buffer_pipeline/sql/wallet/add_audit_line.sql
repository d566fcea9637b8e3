-- Adds a line to the audit trail: who has made a deposit or withdrawal of this transaction, and why. A statement
-- of its own, so that a movement of a caller who does not say so costs what it did.
INSERT INTO buffer.audit_line (at, by, verb, owner, transaction_id, reason)
SELECT
  transaction.recorded_at,
  CAST(:moved_by AS text),
  CASE transaction.type WHEN 'DEPOSIT' THEN 'DEPOSIT' ELSE 'WITHDRAW' END,
  wallet.owner,
  transaction.transaction_id,
  CAST(:reason AS text)
FROM buffer.transaction
INNER JOIN buffer.wallet ON wallet.wallet_id = coalesce(transaction.to_wallet_id, transaction.from_wallet_id)
WHERE transaction.transaction_id = CAST(:transaction_id AS bigint)
RETURNING audit_id
