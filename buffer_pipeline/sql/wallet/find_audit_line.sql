-- Who has made a deposit or withdrawal, and why, if its caller said so.
SELECT
  by AS moved_by,
  reason
FROM buffer.audit_line
WHERE transaction_id = CAST(:transaction_id AS bigint)
