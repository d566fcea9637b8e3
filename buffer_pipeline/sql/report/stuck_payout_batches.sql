-- The batches of payouts that are stuck, the longest first, with `stage`: UNANSWERED for those of which payouts were
-- sent at or before :sent_by and no status came for them (payouts and amount_minor are these); UNAPPROVED and UNSENT
-- for those that have waited for their approval, or since it for their sending, from :waiting_since on or longer.
-- Reads the payouts that are SENT and the batches that are open, by their indexes.
SELECT
  'UNANSWERED' AS stage,
  payout_batch.payout_batch_id,
  payout_batch.currency,
  payout_batch.method,
  unanswered.payouts,
  CAST(unanswered.amount_minor AS bigint) AS amount_minor,
  unanswered.since,
  payout_batch.made_by
FROM (
  SELECT
    payout_batch_id,
    count(*) AS payouts,
    sum(amount_minor) AS amount_minor,
    min(sent_at) AS since
  FROM buffer.payout
  WHERE state = 'SENT' AND sent_at <= CAST(:sent_by AS timestamptz)
  GROUP BY payout_batch_id
) AS unanswered
INNER JOIN buffer.payout_batch ON unanswered.payout_batch_id = payout_batch.payout_batch_id
UNION ALL
SELECT
  CASE state WHEN 'MADE' THEN 'UNAPPROVED' ELSE 'UNSENT' END AS stage,
  payout_batch_id,
  currency,
  method,
  payouts,
  amount_minor,
  coalesce(approved_at, made_at) AS since,
  made_by
FROM buffer.payout_batch
WHERE
  state IN ('MADE', 'APPROVED')
  AND made_at <= CAST(:waiting_since AS timestamptz)
  AND coalesce(approved_at, made_at) <= CAST(:waiting_since AS timestamptz)
ORDER BY since, payout_batch_id
