-- Nothing is refunded of a fee whose rule keeps it, or clawed back of it for the payer. A bank may take it.
SELECT
  hold.hold_id,
  hold.reference,
  transaction.transaction_id,
  transaction.backjob_id,
  transaction.currency,
  transaction.amount_minor,
  rule.name AS rule,
  rule.version AS rule_version
FROM buffer.transaction
INNER JOIN buffer.hold ON transaction.hold_id = hold.hold_id
INNER JOIN buffer.hold_rule AS rule ON hold.rule_id = rule.rule_id
LEFT JOIN buffer.batch ON transaction.batch_id = batch.batch_id
WHERE
  transaction.type IN ('REFUND', 'CLAWBACK', 'ADVANCE')
  AND coalesce(batch.paid_to, 'PAYER') = 'PAYER'
  AND hold.kind = 'FEE'
  AND rule.fee_on_refund = 'keep'
ORDER BY hold.hold_id, transaction.transaction_id
