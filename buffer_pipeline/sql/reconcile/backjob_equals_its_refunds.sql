-- What a backjob refunded is what its REFUND transactions add up to.
SELECT
  backjob.backjob_id,
  backjob.job,
  backjob.state,
  coalesce(backjob.refunded_minor, 0) AS refunded_minor,
  coalesce(sum(transaction.amount_minor), 0) AS transactions_refunded_minor
FROM buffer.backjob
LEFT JOIN buffer.hold_freeze ON backjob.backjob_id = hold_freeze.backjob_id
LEFT JOIN buffer.transaction
  ON
    hold_freeze.hold_id = transaction.hold_id
    AND transaction.type = 'REFUND'
    AND backjob.backjob_id = transaction.backjob_id
GROUP BY backjob.backjob_id
HAVING coalesce(backjob.refunded_minor, 0) <> coalesce(sum(transaction.amount_minor), 0)
ORDER BY backjob.backjob_id
