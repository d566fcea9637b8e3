-- Of the payouts :ids those that match, with the masked account of those that are or were in a batch. Reads
-- only; at most as many rows as ids.
SELECT
  payout.payout_id,
  wallet.owner,
  payout.currency,
  currency.places,
  payout.amount_minor,
  payout.state,
  payout.reference,
  payout.requested_by,
  payout.requested_at,
  payout.override_reason,
  payout.payout_batch_id,
  payout_destination.masked AS account,
  payout.sent_at,
  payout.paid_at,
  payout.returned_at,
  payout.return_reason,
  payout.cancelled_by,
  payout.cancellation_reason,
  payout.cancelled_at
FROM buffer.payout
INNER JOIN buffer.wallet ON payout.wallet_id = wallet.wallet_id
INNER JOIN buffer.currency ON payout.currency = currency.currency
LEFT JOIN buffer.payout_destination ON payout.destination_id = payout_destination.destination_id
WHERE
  payout.payout_id = any(CAST(:ids AS bigint[]))
  AND (CAST(:state AS text) IS NULL OR payout.state = CAST(:state AS text))
  AND (CAST(:owner AS text) IS NULL OR wallet.owner = CAST(:owner AS text))
  AND (
    CAST(:payout_batch_id AS bigint) IS NULL OR payout.payout_batch_id = CAST(:payout_batch_id AS bigint)
  )
