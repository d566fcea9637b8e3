-- The position of each :every-th matured hold behind "after" in the order of release (release hour, wallet, hold),
-- :milestones of them at most, of wallets behind :after_shard up to :through_shard.
-- Of hours before :before_hour, which ended by the cut-off: the index alone says what is matured in them.
-- Where that is NULL, of all hours: each row is looked at for its release date.
SELECT
  release_hour,
  payee_wallet_id,
  hold_id
FROM (
  SELECT
    release_hour,
    payee_wallet_id,
    hold_id,
    row_number() OVER (ORDER BY release_hour, payee_wallet_id, hold_id) AS number
  FROM buffer.unsettled_hold
  WHERE
    state = 'BUFFERED'
    AND (release_hour, payee_wallet_id, hold_id)
    > (CAST(:after_hour AS timestamptz), CAST(:after_wallet_id AS bigint), CAST(:after_hold_id AS bigint))
    AND payee_wallet_id > CAST(:after_shard AS bigint)
    AND payee_wallet_id <= CAST(:through_shard AS bigint)
    AND (
      (CAST(:before_hour AS timestamptz) IS NOT NULL AND release_hour < CAST(:before_hour AS timestamptz))
      OR (
        CAST(:before_hour AS timestamptz) IS NULL
        AND release_hour <= CAST(:due_by AS timestamptz)
        AND release_date <= CAST(:due_by AS timestamptz)
      )
    )
) AS matured
WHERE
  number % CAST(:every AS bigint) = 0
  -- Where the reading ends: a LIMIT would end the answer only.
  AND number <= CAST(:every AS bigint) * CAST(:milestones AS bigint)
ORDER BY number
