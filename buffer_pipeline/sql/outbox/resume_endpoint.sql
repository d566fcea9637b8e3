-- Ends the pause of an endpoint, because its receiver answers again.
DELETE FROM buffer.endpoint_pause
WHERE endpoint = :endpoint
RETURNING endpoint
