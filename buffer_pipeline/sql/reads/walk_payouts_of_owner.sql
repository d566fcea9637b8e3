-- The next payouts of :owner after :key, by id: the newest first, or the oldest first if not :newest. Reads
-- only, by the index of wallets; wallet by wallet, one for each currency.
SELECT
  next.payout_id AS key,
  next.payout_id
FROM buffer.wallet
CROSS JOIN LATERAL (
  (
    SELECT payout.payout_id
    FROM buffer.payout
    WHERE
      CAST(:newest AS boolean)
      AND payout.wallet_id = wallet.wallet_id
      AND payout.payout_id < CAST(:key AS bigint)
    ORDER BY payout.wallet_id DESC, payout.payout_id DESC
    LIMIT CAST(:row_limit AS bigint)
  )
  UNION ALL
  (
    SELECT payout.payout_id
    FROM buffer.payout
    WHERE
      NOT CAST(:newest AS boolean)
      AND payout.wallet_id = wallet.wallet_id
      AND payout.payout_id > CAST(:key AS bigint)
    ORDER BY payout.wallet_id, payout.payout_id
    LIMIT CAST(:row_limit AS bigint)
  )
) AS next
WHERE wallet.owner = CAST(:owner AS text)
ORDER BY CASE WHEN CAST(:newest AS boolean) THEN -next.payout_id ELSE next.payout_id END
LIMIT CAST(:row_limit AS bigint)
