-- When a scheduled release last moved money; no row if none ever has.
SELECT recorded_at
FROM buffer.batch
WHERE kind = 'DUE'
ORDER BY batch_id DESC
LIMIT 1
