-- The position of each :every-th matured hold behind "after" in the order of release (release hour, wallet, hold),
-- :milestones of them at most, of wallets behind :after_shard up to :through_shard.
-- Of hours before :before_hour, which ended by the cut-off: the index alone says what is matured in them.
-- Where that is NULL, of all hours: each row is looked at for its release date.
-- Each looks for the next one: an OFFSET passes over an index's entries at half the cost of numbering them.
WITH RECURSIVE milestone AS (
  SELECT
    CAST(:after_hour AS timestamptz) AS release_hour,
    CAST(:after_wallet_id AS bigint) AS payee_wallet_id,
    CAST(:after_hold_id AS bigint) AS hold_id,
    0 AS number
  UNION ALL
  SELECT
    ahead.release_hour,
    ahead.payee_wallet_id,
    ahead.hold_id,
    milestone.number + 1
  FROM milestone
  CROSS JOIN LATERAL (
    SELECT
      matured.release_hour,
      matured.payee_wallet_id,
      matured.hold_id
    FROM buffer.unsettled_hold AS matured
    WHERE
      matured.state = 'BUFFERED'
      AND (matured.release_hour, matured.payee_wallet_id, matured.hold_id)
      > (milestone.release_hour, milestone.payee_wallet_id, milestone.hold_id)
      AND matured.payee_wallet_id > CAST(:after_shard AS bigint)
      AND matured.payee_wallet_id <= CAST(:through_shard AS bigint)
      AND (
        (
          CAST(:before_hour AS timestamptz) IS NOT NULL
          AND matured.release_hour < CAST(:before_hour AS timestamptz)
        )
        OR (
          CAST(:before_hour AS timestamptz) IS NULL
          AND matured.release_hour <= CAST(:due_by AS timestamptz)
          AND matured.release_date <= CAST(:due_by AS timestamptz)
        )
      )
    ORDER BY matured.release_hour, matured.payee_wallet_id, matured.hold_id
    LIMIT 1 OFFSET CAST(:every AS bigint) - 1
  ) AS ahead
  WHERE milestone.number < CAST(:milestones AS bigint)
)

SELECT
  release_hour,
  payee_wallet_id,
  hold_id
FROM milestone
WHERE number > 0
ORDER BY number
