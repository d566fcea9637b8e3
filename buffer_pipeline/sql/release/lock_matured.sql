-- Locks at most :batch_limit matured holds after "after" and up to "through" in the order of release (release
-- hour, wallet, hold), of wallets after :after_shard up to :through_shard, and their payees' wallets. Returns
-- the holds in that order, and whether the payee owes something.
-- Skips a hold if another transaction has locked it or its wallet, so it never waits. The wallet is locked
-- first, so that a hold whose wallet is skipped is not locked. A row that another transaction changed
-- meanwhile is checked again after it is locked, as PostgreSQL does for every SELECT FOR UPDATE.
SELECT
  due.release_hour,
  due.payee_wallet_id,
  due.hold_id,
  wallet.debt_minor > 0 AS owes
FROM buffer.unsettled_hold AS due
INNER JOIN buffer.wallet ON due.payee_wallet_id = wallet.wallet_id
WHERE
  due.state = 'BUFFERED'
  AND due.release_date <= CAST(:due_by AS timestamptz)
  AND (due.release_hour, due.payee_wallet_id, due.hold_id)
  > (CAST(:after_hour AS timestamptz), CAST(:after_wallet_id AS bigint), CAST(:after_hold_id AS bigint))
  AND (due.release_hour, due.payee_wallet_id, due.hold_id)
  <= (CAST(:through_hour AS timestamptz), CAST(:through_wallet_id AS bigint), CAST(:through_hold_id AS bigint))
  AND due.payee_wallet_id > CAST(:after_shard AS bigint)
  AND due.payee_wallet_id <= CAST(:through_shard AS bigint)
ORDER BY due.release_hour, due.payee_wallet_id, due.hold_id
LIMIT CAST(:batch_limit AS bigint)
FOR NO KEY UPDATE OF wallet SKIP LOCKED
FOR UPDATE OF due SKIP LOCKED -- noqa: PRS
