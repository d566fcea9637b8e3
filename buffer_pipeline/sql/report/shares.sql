-- What fees, taxes and reserves were released from :day to before :until, and from :since to before :until, and
-- what of them was in the buffer at :until; by currency and kind. Without such a share there are no rows.
-- What is in the buffer now, less what has moved since :until. One statement, so that both are from the same
-- snapshot.
SELECT
  currency,
  kind,
  coalesce(sum(amount_minor) FILTER (
    WHERE recorded_at >= CAST(:day AS timestamptz) AND recorded_at < CAST(:until AS timestamptz)
  ), 0) AS released_on_day_minor,
  coalesce(sum(amount_minor) FILTER (
    WHERE recorded_at < CAST(:until AS timestamptz)
  ), 0) AS released_minor,
  sum(in_buffer_minor) AS in_buffer_minor
FROM (
  SELECT
    transaction.currency,
    hold.kind,
    transaction.recorded_at,
    CASE WHEN transaction.type IN ('EARNING', 'EARNING_PART') THEN transaction.amount_minor ELSE 0 END AS amount_minor,
    CASE
      WHEN transaction.recorded_at < CAST(:until AS timestamptz) THEN 0
      WHEN transaction.type = 'PENDING_EARNING' THEN -transaction.amount_minor
      ELSE transaction.amount_minor
    END AS in_buffer_minor
  FROM buffer.transaction
  INNER JOIN buffer.hold ON transaction.hold_id = hold.hold_id
  WHERE
    transaction.recorded_at >= CAST(:since AS timestamptz)
    AND hold.earning_id IS NOT NULL
    AND hold.kind <> 'PAYEE'
    -- What is taken back has left the buffer before.
    AND transaction.type NOT IN ('CLAWBACK', 'ADVANCE')
  UNION ALL
  SELECT
    currency,
    kind,
    NULL,
    0,
    amount_minor
  FROM buffer.unsettled_hold
  WHERE kind <> 'PAYEE'
) AS share
GROUP BY currency, kind
ORDER BY currency, kind
