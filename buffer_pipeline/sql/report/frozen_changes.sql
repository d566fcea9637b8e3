-- How the amount of FROZEN holds changed until :until, by currency. A change is listed at the first full hour
-- after it; all changes before :since are summed up at :since.
-- Overlapping freezes of a hold are one interval. An amount that was refunded, or released as a part, before an
-- interval is not frozen in it.
WITH
freeze_interval AS (
  SELECT
    hold_freeze.hold_id,
    hold_freeze.freeze_id,
    hold.currency,
    hold.amount_minor,
    -- An imported backjob may be older than its hold is in these books.
    greatest(hold_freeze.opened_at, added.recorded_at) AS opened_at,
    -- Callers pass their own clocks, so the closing of a freeze may be recorded after its hold was settled.
    least(hold_freeze.closed_at, hold.settled_at, timestamptz 'infinity') AS ended_at
  FROM buffer.hold_freeze
  INNER JOIN buffer.hold_status AS hold ON hold_freeze.hold_id = hold.hold_id
  INNER JOIN buffer.transaction AS added
    ON hold_freeze.hold_id = added.hold_id AND added.type = 'PENDING_EARNING'
  WHERE
    hold_freeze.opened_at < CAST(:until AS timestamptz)
    AND (hold_freeze.closed_at IS NULL OR hold_freeze.closed_at >= CAST(:since AS timestamptz))
),

reached AS (
  SELECT
    *,
    max(ended_at) OVER (
      PARTITION BY hold_id ORDER BY opened_at, freeze_id
      ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS reached_at
  FROM freeze_interval
  WHERE opened_at < ended_at
),

numbered AS (
  SELECT
    *,
    count(*) FILTER (WHERE reached_at IS NULL OR opened_at >= reached_at) OVER (
      PARTITION BY hold_id ORDER BY opened_at, freeze_id
    ) AS interval_number
  FROM reached
),

frozen AS (
  SELECT
    hold_id,
    currency,
    amount_minor,
    min(opened_at) AS opened_at,
    max(ended_at) AS ended_at
  FROM numbered
  GROUP BY hold_id, currency, amount_minor, interval_number
),

refunded AS (
  SELECT
    frozen.currency,
    frozen.opened_at,
    frozen.ended_at,
    refund.recorded_at,
    refund.amount_minor
  FROM frozen
  INNER JOIN buffer.transaction AS refund ON frozen.hold_id = refund.hold_id AND refund.type IN ('REFUND', 'EARNING_PART')
),

change AS (
  SELECT
    currency,
    opened_at AS moment,
    amount_minor AS change_minor
  FROM frozen
  UNION ALL
  SELECT
    currency,
    ended_at,
    -amount_minor
  FROM frozen
  UNION ALL
  -- Refunds: an amount refunded before the interval is never frozen in it; one refunded during it, until then.
  SELECT
    currency,
    greatest(recorded_at, opened_at),
    -amount_minor
  FROM refunded
  WHERE recorded_at < ended_at
  UNION ALL
  SELECT
    currency,
    ended_at,
    amount_minor
  FROM refunded
  WHERE recorded_at < ended_at
)

SELECT
  currency,
  greatest(
    date_bin('1 hour', moment, timestamptz '2000-01-01 00:00:00+00') + interval '1 hour',
    CAST(:since AS timestamptz)
  ) AS seen_at,
  sum(change_minor) AS change_minor
FROM change
WHERE moment < CAST(:until AS timestamptz)
GROUP BY currency, seen_at
ORDER BY currency, seen_at
