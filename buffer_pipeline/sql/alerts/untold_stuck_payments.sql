-- The holds frozen since before :frozen_before that nobody was told of in :period, the longest first,
-- and what they hold by currency. One row; its arrays and amounts are NULL when there is none.
WITH
stuck AS (
  SELECT
    hold_id,
    min(opened_at) AS frozen_since
  FROM buffer.hold_freeze
  WHERE closed_at IS NULL
  GROUP BY hold_id
  HAVING min(opened_at) < CAST(:frozen_before AS timestamptz)
),

-- Before the holds are read: on most days, at most ticks, nothing is left.
untold AS MATERIALIZED (
  SELECT
    hold_id,
    frozen_since
  FROM stuck
  WHERE NOT EXISTS (
    SELECT FROM buffer.alert
    WHERE
      alert.kind = 'STUCK_PAYMENT'
      AND alert.period = CAST(:period AS timestamptz)
      AND alert.subject = CAST(stuck.hold_id AS text)
  )
),

amount AS (
  SELECT
    hold.currency,
    sum(hold.amount_minor - hold.refunded_minor) AS amount_minor
  FROM untold
  INNER JOIN buffer.hold ON untold.hold_id = hold.hold_id
  WHERE hold.state = 'FROZEN'
  GROUP BY hold.currency
)

SELECT
  (SELECT array_agg(hold_id ORDER BY frozen_since, hold_id) FROM untold) AS hold_ids,
  (SELECT jsonb_object_agg(currency, amount_minor) FROM amount) AS amounts_minor
