-- Holds that nobody was told of in :period and that are frozen since before :frozen_before, or FROZEN without an open
-- freeze.
-- One row: their number; the first :shown ids (those without a freeze first, then the longest frozen); all ids as array
-- text; amounts by currency. All but the number are NULL when there is none.
WITH
-- What is frozen and what was told, grouped rather than joined: linear, whatever the planner believes.
frozen_or_told AS (
  SELECT
    hold_id,
    opened_at AS frozen_at,
    FALSE AS told
  FROM buffer.hold_freeze
  WHERE closed_at IS NULL
  UNION ALL
  SELECT
    hold_id,
    NULL,
    FALSE
  FROM buffer.unsettled_hold
  WHERE state = 'FROZEN'
  UNION ALL
  SELECT
    unnest(hold_ids),
    NULL,
    TRUE
  FROM buffer.alert
  WHERE kind = 'STUCK_PAYMENT' AND period = CAST(:period AS timestamptz)
),

untold AS MATERIALIZED (
  SELECT
    hold_id,
    min(frozen_at) AS frozen_since
  FROM frozen_or_told
  GROUP BY hold_id
  HAVING
    (min(frozen_at) < CAST(:frozen_before AS timestamptz) OR min(frozen_at) IS NULL)
    AND NOT bool_or(told)
),

shown AS (
  SELECT
    hold_id,
    frozen_since
  FROM untold
  ORDER BY frozen_since NULLS FIRST, hold_id
  LIMIT CAST(:shown AS bigint)
),

amount AS (
  SELECT
    unsettled_hold.currency,
    sum(unsettled_hold.amount_minor) AS amount_minor
  FROM untold
  INNER JOIN buffer.unsettled_hold ON untold.hold_id = unsettled_hold.hold_id
  WHERE unsettled_hold.state = 'FROZEN'
  GROUP BY unsettled_hold.currency
)

SELECT
  (SELECT count(*) FROM untold) AS holds,
  (SELECT array_agg(hold_id ORDER BY frozen_since NULLS FIRST, hold_id) FROM shown) AS shown_ids,
  (SELECT CAST(array_agg(hold_id) AS text) FROM untold) AS hold_ids,
  (SELECT jsonb_object_agg(currency, amount_minor) FROM amount) AS amounts_minor
