-- The position of every :every-th matured hold after "after" in the order of release (release hour, wallet,
-- hold), at most :boundaries of them. Only holds of wallets after :after_shard up to :through_shard.
-- If :before_hour is given, only hours before it, which ended by the cut-off: all their holds are matured, so
-- the index alone answers. If it is NULL, all hours: each row is read for its release date.
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
  -- Ends the reading itself (a run condition of the window function). A LIMIT would only cut the result.
  AND number <= CAST(:every AS bigint) * CAST(:boundaries AS bigint)
ORDER BY number
