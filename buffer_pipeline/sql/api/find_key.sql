-- The key with a digest, if it may be used now.
SELECT
  api_key.api_key_id,
  api_key.name,
  api_key.role
FROM buffer.api_key
WHERE api_key.digest = CAST(:digest AS bytea)
  AND api_key.revoked_at IS NULL
  AND (api_key.expires_at IS NULL OR api_key.expires_at > buffer.clock())
