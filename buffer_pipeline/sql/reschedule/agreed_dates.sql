-- The release dates that were agreed when these holds began. They never change.
SELECT
  hold_id,
  original_release_date
FROM buffer.hold
WHERE hold_id = any(CAST(:hold_ids AS bigint[]))
ORDER BY hold_id
