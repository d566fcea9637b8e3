-- The next holds after :key that a release takes at :due_by, by id: the newest first, or the oldest first if
-- not :newest. Reads all that are due, by the index of the release. Reads only.
WITH
due AS MATERIALIZED (
  SELECT unsettled_hold.hold_id
  FROM buffer.unsettled_hold
  WHERE
    unsettled_hold.state = 'BUFFERED'
    AND unsettled_hold.release_hour <= CAST(:due_by AS timestamptz)
    AND unsettled_hold.release_date <= CAST(:due_by AS timestamptz)
),

candidate AS MATERIALIZED (
  SELECT
    due.hold_id AS key,
    due.hold_id
  FROM due
  WHERE
    CASE
      WHEN CAST(:newest AS boolean) THEN due.hold_id < CAST(:key AS bigint)
      ELSE due.hold_id > CAST(:key AS bigint)
    END
  ORDER BY CASE WHEN CAST(:newest AS boolean) THEN -due.hold_id ELSE due.hold_id END
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
