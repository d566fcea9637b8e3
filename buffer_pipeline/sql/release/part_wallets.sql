-- The wallet ids that divide what is due by :due_by, at :fractions, into shards of about as many holds each.
-- NULL if nothing is due.
SELECT
  percentile_disc(CAST(:fractions AS double precision [])) WITHIN GROUP (ORDER BY payee_wallet_id) AS wallet_ids
FROM buffer.unsettled_hold
WHERE
  state = 'BUFFERED'
  AND release_hour <= CAST(:due_by AS timestamptz)
  AND release_date <= CAST(:due_by AS timestamptz)
