-- The holds of :hold_ids, or of the job. Runs after lock_holds, which locked :locked_ids.
-- An unsettled hold that was not locked was added after the locks, and is left out.
-- The ids are one array, so that each hold is looked up by the index, however many holds of the job the
-- planner expects.
SELECT
  hold_status.hold_id,
  hold_status.job,
  hold_status.state,
  hold_status.currency,
  hold_status.amount_minor - hold_status.refunded_minor - hold_status.released_minor AS amount_minor,
  hold_status.held_at,
  hold_status.release_date,
  hold_status.payee_wallet_id,
  hold_status.payer_wallet_id,
  hold_status.kind,
  hold_status.rule_id,
  coalesce(hold_status.earning_id, hold_status.hold_id) AS earning_id,
  payer.owner AS payer
FROM buffer.hold_status
INNER JOIN buffer.wallet AS payer ON hold_status.payer_wallet_id = payer.wallet_id
WHERE
  hold_status.hold_id = any(ARRAY(
    SELECT hold.hold_id
    FROM buffer.hold
    WHERE
      hold.hold_id = any(CAST(:hold_ids AS bigint[]))
      OR (CAST(:with_shares AS boolean) AND hold.earning_id = any(CAST(:hold_ids AS bigint[])))
      OR hold.job = CAST(:job AS text)
  ))
  AND (
    hold_status.hold_id = any(CAST(:locked_ids AS bigint[]))
    OR hold_status.state NOT IN ('BUFFERED', 'FROZEN')
  )
ORDER BY hold_status.hold_id
