-- What decides whether a backjob can be requested that freezes the hold :hold_id: the open backjob of its
-- job, how many were rejected, and the latest release date among the unsettled shares of the payees of its
-- earning, NULL if there is none. `is_of_job` is false if the job has another payer. Reads only.
SELECT
  job.payer = payer.owner AS is_of_job,
  job.open_backjob_id,
  (
    SELECT count(*) FROM buffer.backjob
    WHERE backjob.job = hold.job AND backjob.state = 'REJECTED'
  ) AS rejected,
  (
    SELECT max(unsettled_hold.release_date)
    FROM buffer.hold AS share
    INNER JOIN buffer.unsettled_hold ON share.hold_id = unsettled_hold.hold_id
    WHERE
      share.kind = 'PAYEE'
      AND (
        share.hold_id = coalesce(hold.earning_id, hold.hold_id)
        OR share.earning_id = coalesce(hold.earning_id, hold.hold_id)
      )
  ) AS payees_release_date
FROM buffer.hold
INNER JOIN buffer.job ON hold.job = job.job
INNER JOIN buffer.wallet AS payer ON hold.payer_wallet_id = payer.wallet_id
WHERE hold.hold_id = CAST(:hold_id AS bigint)
