-- The next holds of :job after :key, by id: the newest first, or the oldest first if not :newest. Reads all
-- of the job's, which are few. Reads only.
WITH
candidate AS MATERIALIZED (
  SELECT
    hold.hold_id AS key,
    hold.hold_id
  FROM buffer.hold
  WHERE
    hold.job = CAST(:job AS text)
    AND CASE
      WHEN CAST(:newest AS boolean) THEN hold.hold_id < CAST(:key AS bigint)
      ELSE hold.hold_id > CAST(:key AS bigint)
    END
  ORDER BY CASE WHEN CAST(:newest AS boolean) THEN -hold.hold_id ELSE hold.hold_id END
  LIMIT CAST(:row_limit AS bigint)
)

SELECT
  candidate.key,
  hold.*
FROM candidate
LEFT JOIN buffer.read_holds(
  ARRAY(
    SELECT chosen.hold_id
    FROM candidate AS chosen
  ),
  CAST(:filters AS jsonb)
) AS hold ON candidate.hold_id = hold.hold_id
ORDER BY CASE WHEN CAST(:newest AS boolean) THEN -candidate.key ELSE candidate.key END
