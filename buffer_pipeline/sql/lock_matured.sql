-- Locks at most :batch_limit matured holds behind "after" and up to "through" in the order of release (release hour,
-- wallet, hold), of wallets behind :after_shard up to :through_shard, and returns them in that order.
-- Passes over holds that another transaction has locked. One that somebody changed meanwhile is looked at again
-- behind its lock, as PostgreSQL does for every SELECT FOR UPDATE.
SELECT
  release_hour,
  payee_wallet_id,
  hold_id
FROM buffer.unsettled_hold
WHERE
  state = 'BUFFERED'
  AND release_date <= CAST(:due_by AS timestamptz)
  AND (release_hour, payee_wallet_id, hold_id)
  > (CAST(:after_hour AS timestamptz), CAST(:after_wallet_id AS bigint), CAST(:after_hold_id AS bigint))
  AND (release_hour, payee_wallet_id, hold_id)
  <= (CAST(:through_hour AS timestamptz), CAST(:through_wallet_id AS bigint), CAST(:through_hold_id AS bigint))
  AND payee_wallet_id > CAST(:after_shard AS bigint)
  AND payee_wallet_id <= CAST(:through_shard AS bigint)
ORDER BY release_hour, payee_wallet_id, hold_id
LIMIT CAST(:batch_limit AS bigint)
FOR UPDATE SKIP LOCKED
