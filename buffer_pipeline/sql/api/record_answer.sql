-- Records the answer to a write, for a retry. Deletes up to 100 answers that are older than 30 days, unless another
-- transaction is deleting some: the lock is tried only if there is such an answer, and nobody waits for it.
WITH
too_old AS MATERIALIZED (
  SELECT api_request.api_request_id
  FROM buffer.api_request
  WHERE api_request.recorded_at < (SELECT buffer.clock() - interval '30 days')
    AND (SELECT pg_try_advisory_xact_lock(hashtextextended('buffer.api_request.delete', 0)))
  ORDER BY api_request.recorded_at
  LIMIT 100
),

deleted AS (
  DELETE FROM buffer.api_request
  USING too_old
  WHERE api_request.api_request_id = too_old.api_request_id
)

INSERT INTO buffer.api_request (
  api_key_id, idempotency_key, method, path, content_digest, status, answer, request_id, recorded_at
)
VALUES (
  CAST(:api_key_id AS bigint), CAST(:idempotency_key AS text), CAST(:method AS text), CAST(:path AS text),
  CAST(:content_digest AS bytea), CAST(:status AS smallint), CAST(:answer AS text), CAST(:request_id AS text),
  buffer.clock()
)
RETURNING api_request_id
