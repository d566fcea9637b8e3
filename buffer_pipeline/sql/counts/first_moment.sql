-- When the books begin; NULL when they are empty. A caller brings its own clock, so the first
-- transactions need not be in order: a thousand of them say it well enough.
SELECT min(earliest.recorded_at) AS moment
FROM (
  SELECT recorded_at
  FROM buffer.transaction
  ORDER BY transaction_id
  LIMIT 1000
) AS earliest
