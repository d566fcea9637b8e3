-- All keys, the oldest first.
SELECT
  api_key.api_key_id,
  api_key.name,
  api_key.role,
  api_key.made_at,
  api_key.expires_at,
  api_key.revoked_at
FROM buffer.api_key
ORDER BY api_key.api_key_id
