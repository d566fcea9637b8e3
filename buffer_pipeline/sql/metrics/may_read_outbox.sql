-- Whether this login may read the outbox: a releaser may, a reader may not.
SELECT
  has_table_privilege('buffer.delivery', 'SELECT')
  AND has_table_privilege('buffer.notification', 'SELECT') AS may
