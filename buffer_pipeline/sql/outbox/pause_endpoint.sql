-- Pauses an endpoint until :open_until, or longer if another drainer has set a later time.
INSERT INTO buffer.endpoint_pause AS pause (endpoint, open_until, reason)
VALUES (:endpoint, CAST(:open_until AS timestamptz), :reason)
ON CONFLICT (endpoint) DO UPDATE
SET
  open_until = greatest(pause.open_until, excluded.open_until),
  reason = excluded.reason
RETURNING pause.endpoint
