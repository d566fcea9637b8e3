-- A job names its open backjob, or none if none is open.
WITH
open_backjob AS (
  SELECT
    backjob_id,
    job
  FROM buffer.backjob
  WHERE state = 'OPEN'
)

SELECT
  coalesce(job.job, open_backjob.job) AS job,
  job.open_backjob_id AS named_backjob_id,
  open_backjob.backjob_id AS open_backjob_id
FROM buffer.job
FULL JOIN open_backjob ON job.job = open_backjob.job
WHERE job.open_backjob_id IS DISTINCT FROM open_backjob.backjob_id
ORDER BY 1
