-- Revokes a key by its name; one that was revoked before keeps that time. No row if there is none.
UPDATE buffer.api_key SET revoked_at = coalesce(api_key.revoked_at, CAST(:now AS timestamptz))
WHERE api_key.name = CAST(:key_name AS text)
RETURNING api_key.api_key_id, api_key.name, api_key.role, api_key.revoked_at
