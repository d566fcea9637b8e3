-- The payout with this reference. At most one row. Reads only.
SELECT
  payout.payout_id,
  wallet.owner,
  payout.currency,
  payout.amount_minor,
  payout.whole_balance,
  payout.state,
  payout.reference,
  payout.requested_by,
  payout.override_reason
FROM buffer.payout
INNER JOIN buffer.wallet ON payout.wallet_id = wallet.wallet_id
WHERE payout.reference = :reference
