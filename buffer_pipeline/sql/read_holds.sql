-- How the holds of :hold_ids, or the job's holds, stand; run behind lock_holds, which locked :locked_ids.
-- What is unsettled and was not locked came after the lock, and is left out.
-- The ids come as one array, so that each is looked up, however many holds the planner takes a job to have.
SELECT
  hold_status.hold_id,
  hold_status.job,
  hold_status.state,
  hold_status.currency,
  hold_status.amount_minor - hold_status.refunded_minor AS amount_minor,
  hold_status.release_date,
  hold_status.payee_wallet_id,
  hold_status.payer_wallet_id,
  payer.owner AS payer
FROM buffer.hold_status
INNER JOIN buffer.wallet AS payer ON hold_status.payer_wallet_id = payer.wallet_id
WHERE
  hold_status.hold_id = any(ARRAY(
    SELECT hold.hold_id
    FROM buffer.hold
    WHERE hold.hold_id = any(CAST(:hold_ids AS bigint[])) OR hold.job = CAST(:job AS text)
  ))
  AND (
    hold_status.hold_id = any(CAST(:locked_ids AS bigint[]))
    OR hold_status.state NOT IN ('BUFFERED', 'FROZEN')
  )
ORDER BY hold_status.hold_id
