-- Locks a job, so that no hold is added to it, and no backjob on it is requested or decided, until the transaction ends.
SELECT
  payer,
  open_backjob_id
FROM buffer.job
WHERE job = :job
FOR NO KEY UPDATE
