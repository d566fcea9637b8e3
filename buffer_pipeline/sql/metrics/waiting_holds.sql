-- The holds that wait, by state, currency and kind of share; how much of this is due by :now, and how much by :overdue_by.
-- Reads all waiting holds once, and no history.
SELECT
  state,
  currency,
  kind,
  count(*) AS holds,
  sum(amount_minor) AS amount_minor,
  count(*) FILTER (WHERE due) AS due_holds,
  coalesce(sum(amount_minor) FILTER (WHERE due), 0) AS due_minor,
  count(*) FILTER (WHERE due AND release_date <= CAST(:overdue_by AS timestamptz)) AS overdue_holds,
  min(release_date) FILTER (WHERE due) AS oldest_due
FROM (
  SELECT
    state,
    currency,
    kind,
    amount_minor,
    release_date,
    state = 'BUFFERED' AND release_date <= CAST(:now AS timestamptz) AS due
  FROM buffer.unsettled_hold
) AS waiting
GROUP BY state, currency, kind
ORDER BY state, currency, kind
