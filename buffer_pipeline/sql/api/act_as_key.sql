-- Takes the database role of a key for the rest of the transaction. No row if the key may not be used any more.
SELECT set_config('role', CAST(:database_role AS text), TRUE) AS database_role
FROM buffer.api_key
WHERE api_key.api_key_id = CAST(:api_key_id AS bigint)
  AND api_key.revoked_at IS NULL
  AND (api_key.expires_at IS NULL OR api_key.expires_at > buffer.clock())
