-- Locks, in the order of their ids, the wallets of the owner. Until the transaction ends, nobody else adds a
-- hold for the owner, and none of the owner's holds is settled.
WITH
locked AS MATERIALIZED (
  SELECT wallet_id
  FROM buffer.wallet
  WHERE owner = CAST(:owner AS text)
  ORDER BY wallet_id
  FOR NO KEY UPDATE
)

SELECT count(*) AS wallets FROM locked
