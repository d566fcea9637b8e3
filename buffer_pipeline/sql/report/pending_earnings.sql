-- What is in the buffer now, by currency, and how that has changed since :since. A change stands at the first
-- full hour that shows it; all those from :until on stand together, an hour behind it.
-- One statement, so that what is there now and its changes are of one moment.
WITH
changed AS (
  SELECT
    currency,
    least(
      date_bin('1 hour', recorded_at, timestamptz '2000-01-01 00:00:00+00'), CAST(:until AS timestamptz)
    ) + interval '1 hour' AS seen_at,
    sum(CASE WHEN to_account = 'PENDING_EARNINGS' THEN amount_minor ELSE -amount_minor END) AS change_minor
  FROM buffer.transaction
  WHERE
    recorded_at >= CAST(:since AS timestamptz)
    AND 'PENDING_EARNINGS' IN (from_account, to_account)
  GROUP BY currency, seen_at
),

standing AS (
  SELECT
    currency,
    sum(pending_earnings_minor) AS pending_earnings_minor
  FROM buffer.wallet
  GROUP BY currency
)

SELECT
  standing.currency,
  standing.pending_earnings_minor,
  changed.seen_at,
  changed.change_minor
FROM standing
LEFT JOIN changed ON standing.currency = changed.currency
ORDER BY standing.currency, changed.seen_at
