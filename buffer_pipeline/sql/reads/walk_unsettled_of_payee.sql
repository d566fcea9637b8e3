-- The next holds after :key that wait for :payee, BUFFERED or FROZEN, by id: the newest first, or the oldest
-- first if not :newest. Reads only, by the index of unsettled holds by payee; wallet by wallet, one for each
-- currency.
WITH
candidate AS MATERIALIZED (
  SELECT
    next.hold_id AS key,
    next.hold_id
  FROM buffer.wallet
  CROSS JOIN LATERAL (
    (
      SELECT unsettled_hold.hold_id
      FROM buffer.unsettled_hold
      WHERE
        CAST(:newest AS boolean)
        AND unsettled_hold.payee_wallet_id = wallet.wallet_id
        AND unsettled_hold.hold_id < CAST(:key AS bigint)
      ORDER BY unsettled_hold.payee_wallet_id DESC, unsettled_hold.hold_id DESC
      LIMIT CAST(:row_limit AS bigint)
    )
    UNION ALL
    (
      SELECT unsettled_hold.hold_id
      FROM buffer.unsettled_hold
      WHERE
        NOT CAST(:newest AS boolean)
        AND unsettled_hold.payee_wallet_id = wallet.wallet_id
        AND unsettled_hold.hold_id > CAST(:key AS bigint)
      ORDER BY unsettled_hold.payee_wallet_id, unsettled_hold.hold_id
      LIMIT CAST(:row_limit AS bigint)
    )
  ) AS next
  WHERE wallet.owner = CAST(:payee AS text)
  ORDER BY CASE WHEN CAST(:newest AS boolean) THEN -next.hold_id ELSE next.hold_id END
  LIMIT CAST(:row_limit AS bigint)
)

SELECT
  candidate.key,
  hold.*
FROM candidate
LEFT JOIN buffer.read_holds(
  ARRAY(
    SELECT chosen.hold_id
    FROM candidate AS chosen
  ),
  CAST(:filters AS jsonb)
) AS hold ON candidate.hold_id = hold.hold_id
ORDER BY CASE WHEN CAST(:newest AS boolean) THEN -candidate.key ELSE candidate.key END
