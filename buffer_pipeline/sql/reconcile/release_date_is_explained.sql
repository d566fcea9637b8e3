-- A hold's release date is the one it came with, and later only by what rejected backjobs have added: at most ten
-- years each, from the date there was or from the rejection.
WITH
rejected AS (
  SELECT
    hold_freeze.hold_id,
    count(*) AS rejections,
    max(backjob.decided_at) AS decided_at
  FROM buffer.hold_freeze
  INNER JOIN buffer.backjob ON hold_freeze.backjob_id = backjob.backjob_id
  WHERE backjob.state = 'REJECTED'
  GROUP BY hold_freeze.hold_id
),

said AS (
  SELECT
    hold_id,
    release_date,
    CAST(NULL AS bigint) AS transaction_id
  FROM buffer.unsettled_hold
  UNION ALL
  SELECT
    hold_id,
    release_date,
    transaction_id
  FROM buffer.transaction
  WHERE type IN ('EARNING', 'REFUND')
)

SELECT
  hold.hold_id,
  hold.reference,
  hold.original_release_date,
  said.release_date,
  said.transaction_id,
  coalesce(rejected.rejections, 0) AS rejections,
  rejected.decided_at AS last_rejected_at
FROM buffer.hold
INNER JOIN said ON hold.hold_id = said.hold_id
LEFT JOIN rejected ON hold.hold_id = rejected.hold_id
WHERE
  said.release_date < hold.original_release_date
  OR said.release_date
  > greatest(hold.original_release_date, rejected.decided_at)
  + coalesce(rejected.rejections, 0) * interval '87600 hours'
ORDER BY hold.hold_id, said.transaction_id
