-- The next payouts that are REQUESTED after :key, by id: the newest first, or the oldest first if not
-- :newest. Reads all of them, by their index. Reads only.
WITH
found AS MATERIALIZED (
  SELECT payout.payout_id
  FROM buffer.payout
  WHERE payout.state = 'REQUESTED'
)

SELECT
  found.payout_id AS key,
  found.payout_id
FROM found
WHERE
  CASE
    WHEN CAST(:newest AS boolean) THEN found.payout_id < CAST(:key AS bigint)
    ELSE found.payout_id > CAST(:key AS bigint)
  END
ORDER BY CASE WHEN CAST(:newest AS boolean) THEN -found.payout_id ELSE found.payout_id END
LIMIT CAST(:row_limit AS bigint)
