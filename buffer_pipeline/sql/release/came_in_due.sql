-- Whether a hold that was added after the hold :newest is matured, of wallets after :after_shard up to
-- :through_shard.
-- It reads only what was added, by the primary key. The other indexes would be slower, because they keep an
-- entry for each released hold until vacuum comes. So the planner must not be able to use them: that of due
-- holds has the condition `state = 'BUFFERED'`, not `state <> 'FROZEN'`, and that of payees has no sum.
SELECT
  EXISTS(
    SELECT
    FROM buffer.unsettled_hold
    WHERE
      hold_id > CAST(:newest AS bigint)
      AND state <> 'FROZEN'
      AND release_date <= CAST(:due_by AS timestamptz)
      AND payee_wallet_id + 0 > CAST(:after_shard AS bigint)
      AND payee_wallet_id + 0 <= CAST(:through_shard AS bigint)
  ) AS came_in
