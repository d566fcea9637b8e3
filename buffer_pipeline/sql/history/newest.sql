-- The newest transaction that is seen, and "horizon": whoever may still write one that is older has begun before it.
-- It is this transaction's own number, taken behind the snapshot: a snapshot's xmax is no more than what has ended.
-- (A trigger gives whoever adds lines its number before the first of their ids.)
SELECT
  (SELECT max(transaction_id) FROM buffer.transaction) AS newest_id,
  CAST(pg_current_xact_id() AS text) AS horizon
