-- Ends an endpoint's pause: its receiver answers again.
DELETE FROM buffer.endpoint_pause
WHERE endpoint = :endpoint
RETURNING endpoint
