-- The newest transaction that is seen, and "horizon": whoever may still write one that is older has begun before it.
-- (A transaction of the database has its number before it takes a line's id: it locks what the line is about first.)
SELECT
  (SELECT max(transaction_id) FROM buffer.transaction) AS newest_id,
  CAST(pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot()) AS text) AS horizon
