-- How many REQUESTED payouts of a currency no batch can take, and why: for the refusal of an empty batch, and for
-- what scheduled batches left.
-- Reads only.
SELECT
  count(*) FILTER (WHERE wallet.owner_freeze_id IS NOT NULL) AS frozen,
  count(*) FILTER (WHERE wallet.owner_freeze_id IS NULL AND owed.debt_minor > 0) AS indebted,
  count(*) FILTER (WHERE wallet.owner_freeze_id IS NULL AND owed.debt_minor = 0) AS waiting
FROM buffer.payout
INNER JOIN buffer.wallet ON payout.wallet_id = wallet.wallet_id
CROSS JOIN LATERAL (
  SELECT max(other.debt_minor) AS debt_minor
  FROM buffer.wallet AS other
  WHERE other.owner = wallet.owner
) AS owed
WHERE payout.state = 'REQUESTED' AND payout.currency = :currency
