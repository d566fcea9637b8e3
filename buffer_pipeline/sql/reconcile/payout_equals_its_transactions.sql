-- A payout has the transactions that its state says, once each, of its wallet, currency and amount; and no
-- transaction names a payout that does not exist.
WITH
line AS (
  SELECT
    payout_id,
    count(*) FILTER (WHERE type = 'PAYOUT') AS requested,
    count(*) FILTER (WHERE type = 'PAYOUT_PAID') AS paid,
    count(*) FILTER (WHERE type = 'PAYOUT_RETURNED' AND from_account = 'TRANSIT') AS returned_unpaid,
    count(*) FILTER (WHERE type = 'PAYOUT_RETURNED' AND from_account = 'EXTERNAL') AS returned_paid,
    count(*) FILTER (WHERE type = 'PAYOUT_CANCELLED') AS cancelled,
    min(coalesce(from_wallet_id, to_wallet_id)) AS first_wallet_id,
    max(coalesce(from_wallet_id, to_wallet_id)) AS last_wallet_id,
    min(currency) AS first_currency,
    max(currency) AS last_currency,
    min(amount_minor) AS least_minor,
    max(amount_minor) AS most_minor
  FROM buffer.transaction
  WHERE payout_id IS NOT NULL
  GROUP BY payout_id
)

SELECT
  coalesce(payout.payout_id, line.payout_id) AS payout_id,
  payout.state,
  payout.currency,
  payout.amount_minor,
  line.requested,
  line.paid,
  line.returned_unpaid,
  line.returned_paid,
  line.cancelled
FROM buffer.payout
FULL JOIN line ON payout.payout_id = line.payout_id
WHERE
  (payout.payout_id IS NULL OR line.payout_id IS NULL)
  OR line.requested <> 1
  OR line.paid <> CAST(payout.paid_at IS NOT NULL AS integer)
  OR line.returned_unpaid <> CAST(payout.state = 'RETURNED' AND payout.paid_at IS NULL AS integer)
  OR line.returned_paid <> CAST(payout.state = 'RETURNED' AND payout.paid_at IS NOT NULL AS integer)
  OR line.cancelled <> CAST(payout.state = 'CANCELLED' AS integer)
  OR (line.first_wallet_id, line.last_wallet_id) <> (payout.wallet_id, payout.wallet_id)
  OR (line.first_currency, line.last_currency) <> (payout.currency, payout.currency)
  OR (line.least_minor, line.most_minor) <> (payout.amount_minor, payout.amount_minor)
ORDER BY payout_id
