-- How the job's backjobs stand, the oldest first.
SELECT
  backjob_id,
  state
FROM buffer.backjob
WHERE job = :job
ORDER BY backjob_id
