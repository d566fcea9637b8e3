-- When a scheduled release last moved money; nothing where none ever has.
SELECT recorded_at
FROM buffer.batch
WHERE kind = 'DUE'
ORDER BY batch_id DESC
LIMIT 1
