-- A backjob by its id or by its reference; a null argument matches nothing.
SELECT
  backjob_id,
  reference,
  job,
  state,
  decided_at
FROM buffer.backjob
WHERE backjob_id = CAST(:backjob_id AS bigint) OR reference = CAST(:reference AS text)
