-- The next holds after :key whose metadata contains one of two objects, by id: the newest first, or the
-- oldest first if not :newest. Reads all that match, by the index of metadata. Reads only.
-- Each hold is found before the order matters: otherwise the planner may walk the primary key until enough
-- match.
WITH
found AS MATERIALIZED (
  SELECT hold.hold_id
  FROM buffer.hold
  WHERE hold.metadata @> CAST(:contained AS jsonb) OR hold.metadata @> CAST(:or_contained AS jsonb)
),

candidate AS MATERIALIZED (
  SELECT
    found.hold_id AS key,
    found.hold_id
  FROM found
  WHERE
    CASE
      WHEN CAST(:newest AS boolean) THEN found.hold_id < CAST(:key AS bigint)
      ELSE found.hold_id > CAST(:key AS bigint)
    END
  ORDER BY CASE WHEN CAST(:newest AS boolean) THEN -found.hold_id ELSE found.hold_id END
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
