-- Whether all of :writers have ended: none of them has an hour marked any more. A prepared transaction keeps its
-- marks under another name, so any of those is waited for.
SELECT
  NOT EXISTS (
    SELECT
    FROM pg_catalog.pg_locks
    INNER JOIN pg_catalog.pg_database ON pg_locks.database = pg_database.oid
    WHERE
      pg_database.datname = current_database()
      AND pg_locks.locktype = 'advisory'
      AND pg_locks.classid = CAST(hashtext('buffer.hour') AS oid)
      AND pg_locks.objsubid = 2
      AND (
        pg_locks.virtualtransaction = any(CAST(:writers AS text []))
        OR pg_locks.virtualtransaction LIKE '-1/%'
      )
  ) AS has_passed
