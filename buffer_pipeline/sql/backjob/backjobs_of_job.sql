-- The backjobs of a job and their states, the oldest first.
SELECT
  backjob_id,
  state
FROM buffer.backjob
WHERE job = :job
ORDER BY backjob_id
