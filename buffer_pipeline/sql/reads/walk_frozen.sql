-- The next holds after :key that are FROZEN, by id: the newest first, or the oldest first if not :newest.
-- Reads only, by the index of frozen holds.
WITH
candidate AS MATERIALIZED (
  SELECT
    next.hold_id AS key,
    next.hold_id
  FROM (
    (
      SELECT unsettled_hold.hold_id
      FROM buffer.unsettled_hold
      WHERE
        CAST(:newest AS boolean)
        AND unsettled_hold.hold_id < CAST(:key AS bigint)
        AND unsettled_hold.state = 'FROZEN'
      ORDER BY unsettled_hold.hold_id DESC
      LIMIT CAST(:row_limit AS bigint)
    )
    UNION ALL
    (
      SELECT unsettled_hold.hold_id
      FROM buffer.unsettled_hold
      WHERE
        NOT CAST(:newest AS boolean)
        AND unsettled_hold.hold_id > CAST(:key AS bigint)
        AND unsettled_hold.state = 'FROZEN'
      ORDER BY unsettled_hold.hold_id
      LIMIT CAST(:row_limit AS bigint)
    )
  ) AS next
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
