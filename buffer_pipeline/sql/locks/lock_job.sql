-- Locks a job. Until the transaction ends, nobody else adds a hold to it, or requests or decides a backjob on
-- it.
SELECT
  payer,
  open_backjob_id
FROM buffer.job
WHERE job = :job
FOR NO KEY UPDATE
