-- At most :line_limit lines of a batch for a file, after the payout :after_id, by id. Reads only. The account is
-- read by the role `buffer_payouts` only. A payout with somebody else's destination, which only raw SQL could write,
-- is left out: the file then refuses its sum.
SELECT
  payout.payout_id,
  wallet.owner,
  destination.method,
  destination.account,
  destination.holder_name,
  payout.currency,
  payout.amount_minor
FROM buffer.payout
INNER JOIN buffer.wallet ON payout.wallet_id = wallet.wallet_id
INNER JOIN buffer.payout_destination AS destination ON payout.destination_id = destination.destination_id AND wallet.owner = destination.owner
WHERE
  payout.payout_batch_id = CAST(:payout_batch_id AS bigint)
  AND payout.payout_id > CAST(:after_id AS bigint)
ORDER BY payout.payout_id
LIMIT CAST(:line_limit AS bigint)
