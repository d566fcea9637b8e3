-- The payouts in transit, by currency and state, and since when the oldest has been in that state; those that are
-- BATCHED by the state of their batch, MADE or APPROVED, as their batches say.
-- Reads the payouts that are REQUESTED or SENT, and the batches that are open, each by its index.
SELECT
  currency,
  'REQUESTED' AS state,
  count(*) AS payouts,
  CAST(sum(amount_minor) AS bigint) AS amount_minor,
  min(requested_at) AS since,
  0 AS batches
FROM buffer.payout
WHERE state = 'REQUESTED'
GROUP BY currency
UNION ALL
SELECT
  currency,
  'SENT',
  count(*),
  CAST(sum(amount_minor) AS bigint),
  min(sent_at),
  0
FROM buffer.payout
WHERE state = 'SENT'
GROUP BY currency
UNION ALL
SELECT
  currency,
  state,
  CAST(sum(payouts) AS bigint),
  CAST(sum(amount_minor) AS bigint),
  min(coalesce(approved_at, made_at)),
  count(*)
FROM buffer.payout_batch
WHERE state IN ('MADE', 'APPROVED')
GROUP BY currency, state
ORDER BY currency, state
