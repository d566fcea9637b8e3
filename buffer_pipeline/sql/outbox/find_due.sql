-- Whether anything is to be sent at :now. "new": a notification is not dispatched yet. "due": the first
-- delivery of some owner at one of :endpoints is due and not leased. Deliveries after one that is not due
-- cannot be sent before it, and nothing is sent to a paused endpoint.
WITH
lane_head AS (
  SELECT DISTINCT ON (endpoint, owner)
    next_attempt_at,
    leased_until
  FROM buffer.delivery
  WHERE
    state = 'WAITING'
    AND endpoint = any(CAST(:endpoints AS text []))
    AND NOT EXISTS (
      SELECT FROM buffer.endpoint_pause
      WHERE
        endpoint_pause.endpoint = delivery.endpoint
        AND endpoint_pause.open_until > CAST(:now AS timestamptz)
    )
  ORDER BY endpoint, owner, delivery_id
)

SELECT
  EXISTS(
    SELECT
    FROM buffer.notification
    WHERE notification.dispatched_at IS NULL
  ) AS new,
  EXISTS(
    SELECT
    FROM lane_head
    WHERE
      lane_head.next_attempt_at <= CAST(:now AS timestamptz)
      AND (lane_head.leased_until IS NULL OR lane_head.leased_until <= CAST(:now AS timestamptz))
  ) AS due
