-- Stuck holds that no alert of :period named: those frozen since before :frozen_before, and those FROZEN
-- without an open freeze. Of the holds that only their owner's freeze covers, none if an alert of :period named
-- one of them: the owner is told once, however many holds get stuck after it.
-- One row: their number; the first :shown ids of those that are not only their owner's (first those without a
-- freeze, then those that are frozen longest); the owners' freezes of the others; all ids as array text;
-- amounts by currency. If there is none, all except the number are NULL.
WITH
-- What is frozen and what was reported, grouped rather than joined: linear, whatever the planner believes.
frozen_or_reported AS (
  SELECT
    hold_id,
    opened_at AS frozen_at,
    owner_freeze_id,
    FALSE AS is_reported
  FROM buffer.hold_freeze
  WHERE closed_at IS NULL
  UNION ALL
  SELECT
    hold_id,
    NULL,
    NULL,
    FALSE
  FROM buffer.unsettled_hold
  WHERE state = 'FROZEN'
  UNION ALL
  SELECT
    unnest(hold_ids),
    NULL,
    NULL,
    TRUE
  FROM buffer.alert
  WHERE kind = 'STUCK_PAYMENT' AND period = CAST(:period AS timestamptz)
),

of_hold AS (
  SELECT
    hold_id,
    min(frozen_at) AS frozen_since,
    CASE WHEN count(frozen_at) = count(owner_freeze_id) THEN max(owner_freeze_id) END AS owner_freeze_id,
    bool_or(is_reported) AS is_reported
  FROM frozen_or_reported
  GROUP BY hold_id
),

of_owner AS (
  SELECT
    hold_id,
    frozen_since,
    owner_freeze_id,
    is_reported,
    owner_freeze_id IS NOT NULL AND bool_or(is_reported) OVER (PARTITION BY owner_freeze_id) AS is_owner_reported
  FROM of_hold
),

unreported AS MATERIALIZED (
  SELECT
    hold_id,
    frozen_since,
    owner_freeze_id
  FROM of_owner
  WHERE
    (frozen_since < CAST(:frozen_before AS timestamptz) OR frozen_since IS NULL)
    AND NOT is_reported
    AND NOT is_owner_reported
),

shown AS (
  SELECT
    hold_id,
    frozen_since
  FROM unreported
  WHERE owner_freeze_id IS NULL
  ORDER BY frozen_since NULLS FIRST, hold_id
  LIMIT CAST(:shown AS bigint)
),

amount AS (
  SELECT
    unsettled_hold.currency,
    sum(unsettled_hold.amount_minor) AS amount_minor
  FROM unreported
  INNER JOIN buffer.unsettled_hold ON unreported.hold_id = unsettled_hold.hold_id
  WHERE unsettled_hold.state = 'FROZEN'
  GROUP BY unsettled_hold.currency
)

SELECT
  (SELECT count(*) FROM unreported) AS holds,
  (SELECT array_agg(hold_id ORDER BY frozen_since NULLS FIRST, hold_id) FROM shown) AS shown_ids,
  (SELECT array_remove(array_agg(DISTINCT owner_freeze_id), NULL) FROM unreported) AS owner_freeze_ids,
  (SELECT CAST(array_agg(hold_id) AS text) FROM unreported) AS hold_ids,
  (SELECT jsonb_object_agg(currency, amount_minor) FROM amount) AS amounts_minor
