-- What waits, by state and currency, and of it what is due by :now and what by :overdue_by. Reads all that
-- waits, once, and nothing of the history.
SELECT
  state,
  currency,
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
    amount_minor,
    release_date,
    state = 'BUFFERED' AND release_date <= CAST(:now AS timestamptz) AS due
  FROM buffer.unsettled_hold
) AS waiting
GROUP BY state, currency
ORDER BY state, currency
