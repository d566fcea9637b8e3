-- The next holds after :key, by id: the newest first, or the oldest first if not :newest. :scanned_max rows
-- are looked at, and at most :row_limit that match are returned. The last one that was looked at is returned
-- too, with hold_id NULL if it does not match. Reads only, by the primary key.
WITH
scanned AS MATERIALIZED (
  (
    SELECT
      hold.hold_id,
      hold.kind,
      hold.held_at
    FROM buffer.hold
    WHERE CAST(:newest AS boolean) AND hold.hold_id < CAST(:key AS bigint)
    ORDER BY hold.hold_id DESC
    LIMIT CAST(:scanned_max AS bigint)
  )
  UNION ALL
  (
    SELECT
      hold.hold_id,
      hold.kind,
      hold.held_at
    FROM buffer.hold
    WHERE NOT CAST(:newest AS boolean) AND hold.hold_id > CAST(:key AS bigint)
    ORDER BY hold.hold_id
    LIMIT CAST(:scanned_max AS bigint)
  )
),

bounds AS MATERIALIZED (
  SELECT
    CASE WHEN CAST(:newest AS boolean) THEN min(scanned.hold_id) ELSE max(scanned.hold_id) END AS last_id,
    count(*) AS rows_scanned
  FROM scanned
),

judged AS (
  SELECT
    scanned.hold_id,
    (CAST(:kind AS text) IS NULL OR scanned.kind = CAST(:kind AS text))
    AND (CAST(:held_since AS timestamptz) IS NULL OR scanned.held_at >= CAST(:held_since AS timestamptz))
    AND (CAST(:held_before AS timestamptz) IS NULL OR scanned.held_at < CAST(:held_before AS timestamptz))
      AS is_match
  FROM scanned
),

candidate AS MATERIALIZED (
  SELECT
    judged.hold_id AS key,
    CASE WHEN judged.is_match THEN judged.hold_id END AS hold_id,
    bounds.rows_scanned
  FROM judged
  CROSS JOIN bounds
  WHERE judged.is_match OR judged.hold_id = bounds.last_id
  ORDER BY CASE WHEN CAST(:newest AS boolean) THEN -judged.hold_id ELSE judged.hold_id END
  LIMIT CAST(:row_limit AS bigint)
)

SELECT
  candidate.key,
  candidate.rows_scanned,
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
