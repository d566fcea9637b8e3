-- The next backjobs after :key, by id: the newest first, or the oldest first if not :newest. Reads only, by
-- the primary key.
SELECT
  next.backjob_id AS key,
  next.backjob_id
FROM (
  (
    SELECT backjob.backjob_id
    FROM buffer.backjob
    WHERE CAST(:newest AS boolean) AND backjob.backjob_id < CAST(:key AS bigint)
    ORDER BY backjob.backjob_id DESC
    LIMIT CAST(:row_limit AS bigint)
  )
  UNION ALL
  (
    SELECT backjob.backjob_id
    FROM buffer.backjob
    WHERE NOT CAST(:newest AS boolean) AND backjob.backjob_id > CAST(:key AS bigint)
    ORDER BY backjob.backjob_id
    LIMIT CAST(:row_limit AS bigint)
  )
) AS next
ORDER BY CASE WHEN CAST(:newest AS boolean) THEN -next.backjob_id ELSE next.backjob_id END
