-- Whether anything is to be sent at :now: a notification that is not dispatched yet, or a delivery at one
-- of :endpoints that has come due and that nobody has leased.
SELECT
  EXISTS(SELECT FROM buffer.notification WHERE notification.dispatched_at IS NULL)
  OR EXISTS(
    SELECT
    FROM buffer.delivery
    WHERE
      delivery.state = 'WAITING'
      AND delivery.endpoint = any(CAST(:endpoints AS text []))
      AND delivery.next_attempt_at <= CAST(:now AS timestamptz)
      AND (delivery.leased_until IS NULL OR delivery.leased_until <= CAST(:now AS timestamptz))
  ) AS due
