-- REQUESTED -> BATCHED for the locked payouts :payout_ids, each to its destination, and a new batch, MADE.
-- One row: what is in the batch.
WITH
made AS (
  INSERT INTO buffer.payout_batch (currency, method, payouts, amount_minor, four_eyes, made_by, made_at)
  VALUES (
    :currency,
    :method,
    CAST(:payouts AS bigint),
    CAST(:amount_minor AS bigint),
    CAST(:four_eyes AS boolean),
    :made_by,
    CAST(:now AS timestamptz)
  )
  RETURNING payout_batch_id
),

batched AS (
  UPDATE buffer.payout
  SET
    state = 'BATCHED',
    payout_batch_id = (SELECT made.payout_batch_id FROM made),
    destination_id = taken.destination_id
  FROM unnest(CAST(:payout_ids AS bigint[]), CAST(:destination_ids AS bigint[])) AS taken (payout_id, destination_id)
  WHERE payout.payout_id = taken.payout_id AND payout.state = 'REQUESTED'
  RETURNING payout.amount_minor
)

SELECT
  (SELECT made.payout_batch_id FROM made) AS payout_batch_id,
  count(*) AS payouts,
  CAST(coalesce(sum(amount_minor), 0) AS bigint) AS amount_minor
FROM batched
