-- The next payouts of a batch after :key, by id: the newest first, or the oldest first if not :newest. Reads
-- all of them, by the index of the batch. Reads only.
WITH
found AS MATERIALIZED (
  SELECT payout.payout_id
  FROM buffer.payout
  WHERE payout.payout_batch_id = CAST(:payout_batch_id AS bigint)
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
