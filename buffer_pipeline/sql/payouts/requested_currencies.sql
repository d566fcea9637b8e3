-- The currencies in which payouts are REQUESTED. Reads one entry of an index for each currency.
SELECT currency
FROM buffer.currency
WHERE (
  SELECT max(payout.payout_id)
  FROM buffer.payout
  WHERE payout.state = 'REQUESTED' AND payout.currency = currency.currency
) IS NOT NULL
ORDER BY currency
