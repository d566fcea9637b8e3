-- The next payouts after :key, by id: the newest first, or the oldest first if not :newest. Reads only, by
-- the primary key.
SELECT
  next.payout_id AS key,
  next.payout_id
FROM (
  (
    SELECT payout.payout_id
    FROM buffer.payout
    WHERE CAST(:newest AS boolean) AND payout.payout_id < CAST(:key AS bigint)
    ORDER BY payout.payout_id DESC
    LIMIT CAST(:row_limit AS bigint)
  )
  UNION ALL
  (
    SELECT payout.payout_id
    FROM buffer.payout
    WHERE NOT CAST(:newest AS boolean) AND payout.payout_id > CAST(:key AS bigint)
    ORDER BY payout.payout_id
    LIMIT CAST(:row_limit AS bigint)
  )
) AS next
ORDER BY CASE WHEN CAST(:newest AS boolean) THEN -next.payout_id ELSE next.payout_id END
