-- No hold has paid out more than it held, or been released more than once.
SELECT
  hold.hold_id,
  hold.reference,
  hold.amount_minor,
  sum(transaction.amount_minor) AS paid_minor,
  count(*) FILTER (WHERE transaction.type = 'EARNING') AS earnings
FROM buffer.hold
INNER JOIN buffer.transaction ON hold.hold_id = transaction.hold_id
WHERE transaction.type IN ('EARNING', 'EARNING_PART', 'REFUND')
GROUP BY hold.hold_id
HAVING
  sum(transaction.amount_minor) > hold.amount_minor
  OR count(*) FILTER (WHERE transaction.type = 'EARNING') > 1
ORDER BY hold.hold_id
