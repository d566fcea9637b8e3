-- Locks an idempotency key of an API key until the transaction ends, if nobody has it. Does not wait.
-- A statement of its own: the next one begins after the lock, so it sees the answer that the former holder of the
-- lock has committed (READ COMMITTED).
SELECT
  pg_try_advisory_xact_lock(
    hashtextextended('buffer.api_request:' || CAST(:api_key_id AS bigint) || ':' || CAST(:idempotency_key AS text), 0)
  ) AS is_mine
