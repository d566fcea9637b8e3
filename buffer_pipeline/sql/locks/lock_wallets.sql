-- Locks wallets, in the order of their ids.
-- This is a separate statement, because the statement that changes the wallets must begin after the locks. It
-- then sees the row versions that are locked. If one statement did both, its UPDATE would reach a wallet
-- through an older version and ask for the lock a second time, after the next transaction in the queue: a
-- deadlock.
WITH
locked AS MATERIALIZED (
  SELECT wallet_id
  FROM buffer.wallet
  WHERE wallet_id = any(CAST(:wallet_ids AS bigint[]))
  ORDER BY wallet_id
  FOR NO KEY UPDATE
)

SELECT count(*) AS wallets FROM locked
