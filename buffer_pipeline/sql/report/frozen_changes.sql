-- How the amount of FROZEN holds changed until :until, by currency. A change stands at the first full hour that
-- shows it; all those before :since stand together, at :since.
-- Overlapping freezes of a hold are one interval. What was refunded of it before is not frozen with it.
WITH
standing AS (
  SELECT
    hold_freeze.hold_id,
    hold_freeze.freeze_id,
    hold.currency,
    hold.amount_minor,
    -- A backjob that was brought over may be older than its hold is in these books.
    greatest(hold_freeze.opened_at, added.recorded_at) AS opened_at,
    -- A caller brings its own clock: a freeze may be closed at a later time than its hold is settled at.
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
  FROM standing
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
  INNER JOIN buffer.transaction AS refund ON frozen.hold_id = refund.hold_id AND refund.type = 'REFUND'
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
  -- What an interval does not freeze because it was refunded before, or no longer from the refund on.
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
