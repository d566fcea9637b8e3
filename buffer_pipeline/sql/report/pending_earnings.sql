-- What is in the buffer now, by currency, and how it has changed since :since. A change is listed at the
-- first full hour after it; all changes from :until on are listed one hour after :until.
-- One statement, so that the amount and its changes are from the same snapshot.
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

now_held AS (
  SELECT
    currency,
    sum(pending_earnings_minor) AS pending_earnings_minor
  FROM buffer.wallet
  GROUP BY currency
)

SELECT
  now_held.currency,
  now_held.pending_earnings_minor,
  changed.seen_at,
  changed.change_minor
FROM now_held
LEFT JOIN changed ON now_held.currency = changed.currency
ORDER BY now_held.currency, changed.seen_at
