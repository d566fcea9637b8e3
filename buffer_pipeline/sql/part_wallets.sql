-- The wallet ids that part what is due by :due_by into shares of about as many holds each, at :fractions.
-- NULL when nothing is due.
SELECT
  percentile_disc(CAST(:fractions AS double precision [])) WITHIN GROUP (ORDER BY payee_wallet_id) AS wallet_ids
FROM buffer.unsettled_hold
WHERE
  state = 'BUFFERED'
  AND release_hour <= CAST(:due_by AS timestamptz)
  AND release_date <= CAST(:due_by AS timestamptz)
