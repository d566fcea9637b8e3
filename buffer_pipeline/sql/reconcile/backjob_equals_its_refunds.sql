-- A backjob's refund is the sum of its REFUND transactions. Each of them was written at the time of the
-- decision, for a hold that the backjob froze.
WITH
refund AS (
  SELECT
    transaction.backjob_id,
    sum(transaction.amount_minor) AS amount_minor,
    count(*) FILTER (
      WHERE hold_freeze.freeze_id IS NULL OR transaction.recorded_at IS DISTINCT FROM backjob.decided_at
    ) AS strays
  FROM buffer.transaction
  LEFT JOIN buffer.backjob ON transaction.backjob_id = backjob.backjob_id
  LEFT JOIN buffer.hold_freeze
    ON transaction.backjob_id = hold_freeze.backjob_id AND transaction.hold_id = hold_freeze.hold_id
  WHERE transaction.backjob_id IS NOT NULL
  GROUP BY transaction.backjob_id
)

SELECT
  coalesce(backjob.backjob_id, refund.backjob_id) AS backjob_id,
  backjob.job,
  backjob.state,
  coalesce(backjob.refunded_minor, 0) AS refunded_minor,
  coalesce(refund.amount_minor, 0) AS transactions_refunded_minor,
  coalesce(refund.strays, 0) AS stray_refunds
FROM buffer.backjob
FULL JOIN refund ON backjob.backjob_id = refund.backjob_id
WHERE coalesce(backjob.refunded_minor, 0) <> coalesce(refund.amount_minor, 0) OR refund.strays > 0
ORDER BY backjob_id
