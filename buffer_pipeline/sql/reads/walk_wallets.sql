-- The next wallets after :key, by id: the newest first, or the oldest first if not :newest. Reads only, by
-- the primary key.
SELECT
  next.wallet_id AS key,
  next.wallet_id
FROM (
  (
    SELECT wallet.wallet_id
    FROM buffer.wallet
    WHERE CAST(:newest AS boolean) AND wallet.wallet_id < CAST(:key AS bigint)
    ORDER BY wallet.wallet_id DESC
    LIMIT CAST(:row_limit AS bigint)
  )
  UNION ALL
  (
    SELECT wallet.wallet_id
    FROM buffer.wallet
    WHERE NOT CAST(:newest AS boolean) AND wallet.wallet_id > CAST(:key AS bigint)
    ORDER BY wallet.wallet_id
    LIMIT CAST(:row_limit AS bigint)
  )
) AS next
ORDER BY CASE WHEN CAST(:newest AS boolean) THEN -next.wallet_id ELSE next.wallet_id END
