-- Per currency, what is in TRANSIT is the sum of the payouts that are REQUESTED, BATCHED or SENT.
WITH
moved AS (
  SELECT
    currency,
    sum(CASE WHEN to_account = 'TRANSIT' THEN amount_minor ELSE -amount_minor END) AS transit_minor
  FROM buffer.transaction
  WHERE payout_id IS NOT NULL AND 'TRANSIT' IN (from_account, to_account)
  GROUP BY currency
),

open_payout AS (
  SELECT
    currency,
    sum(amount_minor) AS open_minor
  FROM buffer.payout
  WHERE state IN ('REQUESTED', 'BATCHED', 'SENT')
  GROUP BY currency
)

SELECT
  currency,
  coalesce(moved.transit_minor, 0) AS transit_minor,
  coalesce(open_payout.open_minor, 0) AS open_minor
FROM moved
FULL JOIN open_payout USING (currency)
WHERE coalesce(moved.transit_minor, 0) <> coalesce(open_payout.open_minor, 0)
ORDER BY currency
