-- The newest transaction that is seen, and "horizon": whoever may still write one that is older has begun before it.
-- It is this transaction's own number, taken behind the snapshot: a snapshot's xmax is no more than what has ended.
-- (A transaction of the database has its number before it takes a line's id: it locks what the line is about first.)
SELECT
  (SELECT max(transaction_id) FROM buffer.transaction) AS newest_id,
  CAST(pg_catalog.pg_current_xact_id() AS text) AS horizon
