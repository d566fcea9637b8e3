-- Deliveries, the newest first. A NULL argument does not filter.
SELECT
  delivery.delivery_id,
  delivery.notification_id,
  notification.type,
  delivery.endpoint,
  delivery.owner,
  delivery.state,
  delivery.attempts,
  delivery.created_at,
  delivery.next_attempt_at,
  delivery.first_attempt_at,
  delivery.leased_until,
  delivery.settled_at,
  delivery.reason
FROM buffer.delivery
INNER JOIN buffer.notification ON delivery.notification_id = notification.notification_id
WHERE
  (CAST(:state AS text) IS NULL OR delivery.state = CAST(:state AS text))
  AND (CAST(:owner AS text) IS NULL OR delivery.owner = CAST(:owner AS text))
  AND (CAST(:endpoint AS text) IS NULL OR delivery.endpoint = CAST(:endpoint AS text))
  AND (CAST(:type AS text) IS NULL OR notification.type = CAST(:type AS text))
  AND (CAST(:before_id AS bigint) IS NULL OR delivery.delivery_id < CAST(:before_id AS bigint))
ORDER BY delivery.delivery_id DESC
LIMIT :page_limit
