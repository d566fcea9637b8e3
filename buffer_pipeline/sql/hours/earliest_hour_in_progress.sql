-- The earliest hour that another transaction is writing into; NULL if there is none.
-- Reads the lock table, which is newer than the statement's snapshot. So count in a later statement.
SELECT to_timestamp(min(CAST(pg_locks.objid AS bigint)) * 3600) AS hour
FROM pg_catalog.pg_locks
INNER JOIN pg_catalog.pg_database ON pg_locks.database = pg_database.oid
WHERE
  pg_database.datname = current_database()
  AND pg_locks.locktype = 'advisory'
  AND pg_locks.classid = CAST(hashtext('buffer.hour') AS oid)
  AND pg_locks.objsubid = 2
  AND pg_locks.pid IS DISTINCT FROM pg_backend_pid()
