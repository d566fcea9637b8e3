-- Locks, by id, the payouts of a batch. A payout that leaves the batch meanwhile is left out.
WITH
locked AS MATERIALIZED (
  SELECT payout_id
  FROM buffer.payout
  WHERE payout_batch_id = CAST(:payout_batch_id AS bigint)
  ORDER BY payout_id
  FOR NO KEY UPDATE
)

SELECT count(*) AS payouts FROM locked
