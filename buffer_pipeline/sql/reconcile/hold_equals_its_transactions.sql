-- Each hold's state and amounts are what its transactions say.
WITH
said AS (
  SELECT
    hold_id,
    sum(amount_minor) FILTER (WHERE type = 'PENDING_EARNING') AS held_minor,
    coalesce(sum(amount_minor) FILTER (WHERE type = 'REFUND'), 0) AS refunded_minor,
    coalesce(sum(amount_minor) FILTER (WHERE type = 'EARNING'), 0) AS earned_minor
  FROM buffer.transaction
  WHERE hold_id IS NOT NULL
  GROUP BY hold_id
)

SELECT
  hold.hold_id,
  hold.reference,
  hold.state,
  hold.amount_minor,
  hold.refunded_minor,
  coalesce(said.held_minor, 0) AS transactions_held_minor,
  coalesce(said.refunded_minor, 0) AS transactions_refunded_minor,
  coalesce(said.earned_minor, 0) AS transactions_earned_minor
FROM buffer.hold
LEFT JOIN said ON hold.hold_id = said.hold_id
WHERE
  coalesce(said.held_minor, 0) <> hold.amount_minor
  OR coalesce(said.refunded_minor, 0) <> hold.refunded_minor
  OR coalesce(said.earned_minor, 0)
  <> CASE WHEN hold.state = 'RELEASED' THEN hold.amount_minor - hold.refunded_minor ELSE 0 END
ORDER BY hold.hold_id
