-- Whether a hold that came in behind :newest is matured, of wallets behind :after_shard up to :through_shard.
-- It looks at what came in only, by the key, and not at what was released: of that the index of what is due keeps an
-- entry each until vacuum comes. BUFFERED is said so that the index, which has BUFFERED for its condition, cannot be
-- taken.
SELECT
  EXISTS(
    SELECT
    FROM buffer.unsettled_hold
    WHERE
      hold_id > CAST(:newest AS bigint)
      AND state <> 'FROZEN'
      AND release_date <= CAST(:due_by AS timestamptz)
      AND payee_wallet_id > CAST(:after_shard AS bigint)
      AND payee_wallet_id <= CAST(:through_shard AS bigint)
  ) AS came_in
