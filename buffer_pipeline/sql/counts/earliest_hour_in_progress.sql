-- The earliest hour that another transaction is writing into; NULL when there is none.
-- Reads the lock table, which is newer than the statement's snapshot: count in a later statement.
SELECT to_timestamp(min(CAST(objid AS bigint)) * 3600) AS hour
FROM pg_locks
WHERE
  locktype = 'advisory'
  AND classid = CAST(hashtext('buffer.hour') AS oid)
  AND objsubid = 2
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND pid IS DISTINCT FROM pg_backend_pid()
