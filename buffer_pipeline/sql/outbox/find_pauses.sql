-- The pauses of :endpoints, those whose end has come included: a probe decides about these.
SELECT
  endpoint,
  open_until,
  reason
FROM buffer.endpoint_pause
WHERE endpoint = any(CAST(:endpoints AS text []))
ORDER BY endpoint
