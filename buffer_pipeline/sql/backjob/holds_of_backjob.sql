-- The holds that a backjob froze, in any state, with what its approval refunded of each, and whether that was
-- all that was left.
SELECT
  covered.hold_id,
  status.kind,
  status.rule_id,
  status.state = 'REFUNDED' AND refund.transaction_id IS NOT NULL AND NOT EXISTS (
    SELECT FROM buffer.transaction AS later
    WHERE
      later.hold_id = covered.hold_id
      AND later.type = 'REFUND'
      AND later.transaction_id > refund.transaction_id
  ) AS refunded_whole,
  refund.currency,
  coalesce(refund.amount_minor, 0) AS refunded_minor
FROM buffer.hold_freeze AS covered
INNER JOIN buffer.hold_status AS status ON covered.hold_id = status.hold_id
LEFT JOIN buffer.transaction AS refund
  ON covered.hold_id = refund.hold_id AND refund.type = 'REFUND' AND covered.backjob_id = refund.backjob_id
WHERE covered.backjob_id = CAST(:backjob_id AS bigint)
ORDER BY covered.hold_id
