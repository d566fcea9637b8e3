-- Has an endpoint left alone until :open_until, or for longer where another drainer says so.
INSERT INTO buffer.endpoint_pause AS pause (endpoint, open_until, reason)
VALUES (:endpoint, CAST(:open_until AS timestamptz), :reason)
ON CONFLICT (endpoint) DO UPDATE
SET
  open_until = greatest(pause.open_until, excluded.open_until),
  reason = excluded.reason
RETURNING pause.endpoint
