-- The pauses of :endpoints, also those that are over: a probe decides about these.
SELECT
  endpoint,
  open_until,
  reason
FROM buffer.endpoint_pause
WHERE endpoint = any(CAST(:endpoints AS text []))
ORDER BY endpoint
