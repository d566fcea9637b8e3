-- Takes the database role of a key for the rest of the transaction, and finds the answer that an earlier request
-- with the same idempotency key got; its columns are NULL if there was none. No row if the key may not be used any
-- more. Called after try_lock_request.sql.
SELECT
  set_config('role', CAST(:database_role AS text), TRUE) AS database_role,
  api_request.content_digest,
  api_request.status,
  api_request.answer
FROM buffer.api_key
LEFT JOIN buffer.api_request
  ON api_request.api_key_id = api_key.api_key_id
  AND api_request.idempotency_key = CAST(:idempotency_key AS text)
WHERE api_key.api_key_id = CAST(:api_key_id AS bigint)
  AND api_key.revoked_at IS NULL
  AND (api_key.expires_at IS NULL OR api_key.expires_at > buffer.clock())
