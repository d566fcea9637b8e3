-- When the books begin; NULL when they are empty. A caller brings its own clock, so the first rows need
-- not be the earliest; what lies before them the block-range indexes find without reading the rest.
WITH
first_written AS (
  SELECT recorded_at AS moment
  FROM buffer.transaction
  ORDER BY transaction_id
  LIMIT 1
),

earlier AS (
  SELECT recorded_at AS moment
  FROM buffer.transaction
  WHERE recorded_at < (SELECT moment FROM first_written)
  UNION ALL
  SELECT opened_at AS moment
  FROM buffer.hold_freeze
  WHERE opened_at < (SELECT moment FROM first_written)
)

SELECT coalesce((SELECT min(moment) FROM earlier), (SELECT moment FROM first_written)) AS moment
