-- What was added, released and refunded since the books began, by currency: the sum of the counted hours and
-- of the transactions of :hours, the hours that are not counted yet (found by the block-range index).
SELECT
  currency,
  CAST(sum(holds_added) AS bigint) AS holds_added,
  sum(added_minor) AS added_minor,
  CAST(sum(holds_released) AS bigint) AS holds_released,
  CAST(sum(holds_released_early) AS bigint) AS holds_released_early,
  sum(released_minor) AS released_minor,
  CAST(sum(refunds) AS bigint) AS refunds,
  sum(refunded_minor) AS refunded_minor,
  CAST(sum(parts_released) AS bigint) AS parts_released
FROM (
  SELECT
    currency,
    holds_added,
    added_minor,
    holds_released,
    holds_released_early,
    released_minor,
    refunds,
    refunded_minor,
    parts_released
  FROM buffer.hourly_release_count
  UNION ALL
  SELECT
    line.currency,
    count(*) FILTER (WHERE line.type = 'PENDING_EARNING'),
    coalesce(sum(line.amount_minor) FILTER (WHERE line.type = 'PENDING_EARNING'), 0),
    count(*) FILTER (WHERE line.type = 'EARNING'),
    count(*) FILTER (WHERE line.type = 'EARNING' AND batch.kind = 'EARLY'),
    coalesce(sum(line.amount_minor) FILTER (WHERE line.type IN ('EARNING', 'EARNING_PART')), 0),
    count(*) FILTER (WHERE line.type = 'REFUND'),
    coalesce(sum(line.amount_minor) FILTER (WHERE line.type = 'REFUND'), 0),
    count(*) FILTER (WHERE line.type = 'EARNING_PART')
  FROM unnest(CAST(:hours AS timestamptz [])) AS asked (hour)
  INNER JOIN buffer.transaction AS line
    ON line.recorded_at >= asked.hour AND line.recorded_at < asked.hour + interval '1 hour'
  LEFT JOIN buffer.batch ON line.batch_id = batch.batch_id
  WHERE line.hold_id IS NOT NULL AND line.type NOT IN ('CLAWBACK', 'ADVANCE')
  GROUP BY line.currency
) AS moved
GROUP BY currency
ORDER BY currency
