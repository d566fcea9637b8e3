-- Each hold's amount is what its transactions say: held once, and then earned, refunded or still waiting.
WITH
said AS (
  SELECT
    hold_id,
    sum(amount_minor) FILTER (WHERE type = 'PENDING_EARNING') AS held_minor,
    coalesce(sum(amount_minor) FILTER (WHERE type = 'REFUND'), 0) AS refunded_minor,
    coalesce(sum(amount_minor) FILTER (WHERE type IN ('EARNING', 'EARNING_PART')), 0) AS earned_minor,
    count(*) FILTER (WHERE type IN ('EARNING', 'REFUND')) > 0 AS may_be_settled,
    count(*) FILTER (WHERE type = 'EARNING') > 0 AS is_earned
  FROM buffer.transaction
  WHERE hold_id IS NOT NULL
  GROUP BY hold_id
)

SELECT
  hold.hold_id,
  hold.reference,
  hold.amount_minor,
  unsettled_hold.state AS waits_as,
  coalesce(unsettled_hold.amount_minor, 0) AS waiting_minor,
  coalesce(said.held_minor, 0) AS transactions_held_minor,
  coalesce(said.refunded_minor, 0) AS transactions_refunded_minor,
  coalesce(said.earned_minor, 0) AS transactions_earned_minor
FROM buffer.hold
LEFT JOIN said ON hold.hold_id = said.hold_id
LEFT JOIN buffer.unsettled_hold ON hold.hold_id = unsettled_hold.hold_id
WHERE
  coalesce(said.held_minor, 0) <> hold.amount_minor
  OR coalesce(said.refunded_minor, 0) + coalesce(said.earned_minor, 0) + coalesce(unsettled_hold.amount_minor, 0)
  <> hold.amount_minor
  OR (said.is_earned AND unsettled_hold.hold_id IS NOT NULL)
  OR (NOT coalesce(said.may_be_settled, FALSE) AND unsettled_hold.hold_id IS NULL)
ORDER BY hold.hold_id
