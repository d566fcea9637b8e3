-- DEAD -> WAITING, as if never tried, at the old place in the owner's order.
-- Selects by :delivery_ids, by the time at which they were given up (from :since to before :until), and by
-- endpoint; a NULL argument does not filter. At most :batch_limit, the oldest first, locked in that order.
WITH dead AS MATERIALIZED (
  SELECT delivery_id
  FROM buffer.delivery
  WHERE
    state = 'DEAD'
    AND (CAST(:delivery_ids AS bigint[]) IS NULL OR delivery_id = any(CAST(:delivery_ids AS bigint[])))
    AND (CAST(:since AS timestamptz) IS NULL OR settled_at >= CAST(:since AS timestamptz))
    AND (CAST(:until AS timestamptz) IS NULL OR settled_at < CAST(:until AS timestamptz))
    AND (CAST(:endpoint AS text) IS NULL OR endpoint = CAST(:endpoint AS text))
  ORDER BY delivery_id
  LIMIT :batch_limit
  FOR NO KEY UPDATE
)
UPDATE buffer.delivery
SET
  state = 'WAITING',
  attempts = 0,
  first_attempt_at = NULL,
  next_attempt_at = CAST(:now AS timestamptz),
  settled_at = NULL,
  reason = NULL
WHERE delivery_id IN (SELECT dead.delivery_id FROM dead)
RETURNING delivery_id
