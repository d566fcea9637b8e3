-- How many payouts of a batch came back. The caller has locked the batch. Reads the batch's payouts only.
SELECT count(*) AS payouts
FROM buffer.payout
WHERE payout_batch_id = CAST(:payout_batch_id AS bigint) AND state = 'RETURNED'
