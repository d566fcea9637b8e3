-- The time of the first row of the books; NULL if they are empty. A caller passes its own clock, so the first
-- rows may not be the earliest ones. The block-range indexes find earlier rows without reading the rest.
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
