-- The next backjobs of :job after :key, by id: the newest first, or the oldest first if not :newest. Reads
-- all of them, which are few. Reads only.
WITH
found AS MATERIALIZED (
  SELECT backjob.backjob_id
  FROM buffer.backjob
  WHERE backjob.job = CAST(:job AS text)
)

SELECT
  found.backjob_id AS key,
  found.backjob_id
FROM found
WHERE
  CASE
    WHEN CAST(:newest AS boolean) THEN found.backjob_id < CAST(:key AS bigint)
    ELSE found.backjob_id > CAST(:key AS bigint)
  END
ORDER BY CASE WHEN CAST(:newest AS boolean) THEN -found.backjob_id ELSE found.backjob_id END
LIMIT CAST(:row_limit AS bigint)
