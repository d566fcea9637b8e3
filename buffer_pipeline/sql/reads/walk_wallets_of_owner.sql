-- The next wallets of :owner after :key, by id: the newest first, or the oldest first if not :newest. Reads
-- only, by the index of owners.
WITH
found AS MATERIALIZED (
  SELECT wallet.wallet_id
  FROM buffer.wallet
  WHERE wallet.owner = CAST(:owner AS text)
)

SELECT
  found.wallet_id AS key,
  found.wallet_id
FROM found
WHERE
  CASE
    WHEN CAST(:newest AS boolean) THEN found.wallet_id < CAST(:key AS bigint)
    ELSE found.wallet_id > CAST(:key AS bigint)
  END
ORDER BY CASE WHEN CAST(:newest AS boolean) THEN -found.wallet_id ELSE found.wallet_id END
LIMIT CAST(:row_limit AS bigint)
