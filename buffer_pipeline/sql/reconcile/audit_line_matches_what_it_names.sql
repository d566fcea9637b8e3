-- Each line of the audit trail has the owner whose money it is about: the payee of its hold, or the owner of
-- the deposit or withdrawal that it names, which has the same time.
SELECT
  audit_line.audit_id,
  audit_line.verb,
  audit_line.owner,
  audit_line.at,
  audit_line.hold_id,
  audit_line.transaction_id,
  transaction.type AS transaction_type,
  transaction.recorded_at,
  wallet.owner AS owner_named
FROM buffer.audit_line
LEFT JOIN buffer.hold ON audit_line.hold_id = hold.hold_id
LEFT JOIN buffer.transaction ON audit_line.transaction_id = transaction.transaction_id
LEFT JOIN buffer.wallet
  ON wallet.wallet_id = coalesce(hold.payee_wallet_id, transaction.to_wallet_id, transaction.from_wallet_id)
WHERE
  wallet.owner IS DISTINCT FROM audit_line.owner
  OR (
    audit_line.transaction_id IS NOT NULL
    AND (
      transaction.type <> CASE audit_line.verb WHEN 'WITHDRAW' THEN 'WITHDRAWAL' ELSE audit_line.verb END
      OR transaction.recorded_at <> audit_line.at
    )
  )
ORDER BY audit_line.audit_id
