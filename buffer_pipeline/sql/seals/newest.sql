-- The newest transaction that is visible, and the database transactions that may still write an older one: all
-- others that have marked an hour (migration 0015: each does so before it takes the first of its ids).
-- The lock table is newer than the statement's snapshot. A writer that ended in between has ended, so a later
-- statement sees what it wrote.
SELECT
  (SELECT max(transaction_id) FROM buffer.transaction) AS newest_id,
  (
    SELECT array_agg(DISTINCT pg_locks.virtualtransaction)
    FROM pg_catalog.pg_locks
    INNER JOIN pg_catalog.pg_database ON pg_locks.database = pg_database.oid
    WHERE
      pg_database.datname = current_database()
      AND pg_locks.locktype = 'advisory'
      AND pg_locks.classid = CAST(hashtext('buffer.hour') AS oid)
      AND pg_locks.objsubid = 2
      AND pg_locks.pid IS DISTINCT FROM pg_backend_pid()
  ) AS writers
