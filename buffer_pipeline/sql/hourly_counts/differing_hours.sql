-- Counted hours from :since to before :until whose figures differ from what the transactions and freezes give
-- now. This SQL repeats what movements.py and hourly_counts.py compute in Python, so that an error in one of
-- them shows.
WITH
movement AS (
  SELECT
    date_bin('1 hour', transaction.recorded_at, timestamptz '2000-01-01 00:00:00+00') AS hour,
    transaction.currency,
    transaction.type AS kind,
    hold.kind AS share,
    transaction.amount_minor,
    hold.payee_wallet_id,
    batch.kind = 'EARLY' AS early,
    CAST(
      CASE WHEN batch.kind = 'DUE' THEN extract(EPOCH FROM transaction.recorded_at - transaction.release_date) END
      AS double precision
    ) AS lateness_seconds
  FROM buffer.transaction
  INNER JOIN buffer.hold ON transaction.hold_id = hold.hold_id
  LEFT JOIN buffer.batch ON transaction.batch_id = batch.batch_id
  WHERE
    transaction.recorded_at >= CAST(:since AS timestamptz)
    AND transaction.recorded_at < CAST(:until AS timestamptz)
    AND transaction.type NOT IN ('CLAWBACK', 'ADVANCE')
  UNION ALL
  SELECT
    date_bin('1 hour', hold_freeze.opened_at, timestamptz '2000-01-01 00:00:00+00'),
    hold.currency,
    'FREEZE_OPENED',
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
  FROM buffer.hold_freeze
  INNER JOIN buffer.hold ON hold_freeze.hold_id = hold.hold_id
  WHERE
    hold_freeze.opened_at >= CAST(:since AS timestamptz)
    AND hold_freeze.opened_at < CAST(:until AS timestamptz)
  UNION ALL
  SELECT
    date_bin('1 hour', hold_freeze.closed_at, timestamptz '2000-01-01 00:00:00+00'),
    hold.currency,
    'FREEZE_CLOSED',
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
  FROM buffer.hold_freeze
  INNER JOIN buffer.hold ON hold_freeze.hold_id = hold.hold_id
  WHERE
    hold_freeze.closed_at >= CAST(:since AS timestamptz)
    AND hold_freeze.closed_at < CAST(:until AS timestamptz)
),

said AS (
  SELECT
    hour,
    currency,
    count(*) FILTER (WHERE kind = 'PENDING_EARNING') AS holds_added,
    coalesce(sum(amount_minor) FILTER (WHERE kind = 'PENDING_EARNING'), 0) AS added_minor,
    count(*) FILTER (WHERE kind = 'EARNING') AS holds_released,
    count(*) FILTER (WHERE kind = 'EARNING' AND early) AS holds_released_early,
    coalesce(sum(amount_minor) FILTER (WHERE kind IN ('EARNING', 'EARNING_PART')), 0) AS released_minor,
    coalesce(sum(amount_minor) FILTER (WHERE kind IN ('EARNING', 'EARNING_PART') AND share = 'FEE'), 0)
      AS released_fee_minor,
    coalesce(sum(amount_minor) FILTER (WHERE kind IN ('EARNING', 'EARNING_PART') AND share = 'TAX'), 0)
      AS released_tax_minor,
    coalesce(sum(amount_minor) FILTER (WHERE kind IN ('EARNING', 'EARNING_PART') AND share = 'RESERVE'), 0)
      AS released_reserve_minor,
    count(DISTINCT payee_wallet_id) FILTER (WHERE kind IN ('EARNING', 'EARNING_PART')) AS payees,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY lateness_seconds) AS lateness_median_seconds,
    max(lateness_seconds) AS lateness_max_seconds,
    count(*) FILTER (WHERE kind = 'REFUND') AS refunds,
    coalesce(sum(amount_minor) FILTER (WHERE kind = 'REFUND'), 0) AS refunded_minor,
    count(*) FILTER (WHERE kind = 'FREEZE_OPENED') AS freezes_opened,
    count(*) FILTER (WHERE kind = 'FREEZE_CLOSED') AS freezes_closed,
    count(*) FILTER (WHERE kind = 'EARNING_PART') AS parts_released
  FROM movement
  WHERE EXISTS (SELECT FROM buffer.counted_hour
WHERE counted_hour.hour = movement.hour)
  GROUP BY hour, currency
),

stored AS (
  SELECT *
  FROM buffer.hourly_release_count
  WHERE hour >= CAST(:since AS timestamptz) AND hour < CAST(:until AS timestamptz)
),

pair AS (
  SELECT
    coalesce(stored.hour, said.hour) AS hour,
    coalesce(stored.currency, said.currency) AS currency,
    to_jsonb(stored) AS stored,
    to_jsonb(said) AS said
  FROM stored
  FULL JOIN said ON stored.hour = said.hour AND stored.currency = said.currency
)

SELECT
  pair.hour,
  pair.currency,
  figure.name AS figure,
  pair.stored ->> figure.name AS counted,
  pair.said ->> figure.name AS transactions_say
FROM pair
CROSS JOIN LATERAL jsonb_object_keys((coalesce(pair.stored, pair.said) - 'hour') - 'currency') AS figure (name)
WHERE
  coalesce(
    -- All figures are exact except the median lateness, which may be the mean of two doubles.
    abs(CAST(pair.stored ->> figure.name AS numeric) - CAST(pair.said ->> figure.name AS numeric)) > 0.001,
    (pair.stored ->> figure.name) IS DISTINCT FROM (pair.said ->> figure.name)
  )
ORDER BY pair.hour, pair.currency, figure.name
