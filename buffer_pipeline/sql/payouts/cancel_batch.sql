-- MADE | APPROVED -> CANCELLED for a batch, and BATCHED -> REQUESTED for its payouts: the next batch takes them.
-- The caller has locked both. No money moves. One row: how many payouts went back.
WITH
cancelled AS (
  UPDATE buffer.payout_batch
  SET
    state = 'CANCELLED',
    cancelled_by = :cancelled_by,
    cancellation_reason = :reason,
    cancelled_at = CAST(:now AS timestamptz)
  WHERE payout_batch_id = CAST(:payout_batch_id AS bigint) AND state IN ('MADE', 'APPROVED')
  RETURNING payout_batch_id
),

back AS (
  UPDATE buffer.payout
  SET
    state = 'REQUESTED',
    payout_batch_id = NULL,
    destination_id = NULL
  FROM cancelled
  WHERE payout.payout_batch_id = cancelled.payout_batch_id AND payout.state = 'BATCHED'
  RETURNING payout.payout_id
)

SELECT count(*) AS payouts FROM back
