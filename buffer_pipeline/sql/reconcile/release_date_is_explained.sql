-- A hold's release date is its original one, or the one that it was last moved to by a line of the audit trail,
-- or later only by what rejected backjobs have added: at most the cooldown of the hold's rule each, ten years
-- without one, counted from the date before or from the rejection. Each move begins at a date that is explained so, and no move to a later date ends more
-- than 90 days after the original one.
-- The moves of a hold are in the order of their ids, because each has locked the hold. A partial refund and a
-- part that was released early carry the date of its time, which any of the hold's moves may explain.
WITH
rejected AS (
  SELECT
    hold_freeze.hold_id,
    count(*) AS rejections,
    max(backjob.decided_at) AS decided_at
  FROM buffer.hold_freeze
  INNER JOIN buffer.backjob ON hold_freeze.backjob_id = backjob.backjob_id
  WHERE backjob.state = 'REJECTED'
  GROUP BY hold_freeze.hold_id
),

move AS (
  SELECT
    audit_line.audit_id,
    audit_line.hold_id,
    audit_line.from_date,
    audit_line.to_date,
    coalesce(
      lag(audit_line.to_date) OVER (PARTITION BY audit_line.hold_id ORDER BY audit_line.audit_id),
      hold.original_release_date
    ) AS date_before
  FROM buffer.audit_line
  INNER JOIN buffer.hold ON audit_line.hold_id = hold.hold_id
  WHERE audit_line.verb = 'RESCHEDULE'
),

last_move AS (
  SELECT DISTINCT ON (hold_id)
    hold_id,
    to_date
  FROM move
  ORDER BY hold_id ASC, audit_id DESC
),

-- What says a date, and the date that it counts from.
said AS (
  SELECT
    unsettled_hold.hold_id,
    unsettled_hold.release_date,
    last_move.to_date AS date_before,
    CAST(NULL AS bigint) AS transaction_id,
    CAST(NULL AS bigint) AS audit_id,
    CAST(NULL AS timestamptz) AS moved_to
  FROM buffer.unsettled_hold
  LEFT JOIN last_move ON unsettled_hold.hold_id = last_move.hold_id
  UNION ALL
  SELECT
    transaction.hold_id,
    transaction.release_date,
    last_move.to_date,
    transaction.transaction_id,
    NULL,
    NULL
  FROM buffer.transaction
  LEFT JOIN last_move ON transaction.hold_id = last_move.hold_id
  WHERE transaction.type = 'EARNING'
  UNION ALL
  SELECT
    transaction.hold_id,
    transaction.release_date,
    greatest(
      CASE WHEN hold.original_release_date <= transaction.release_date THEN hold.original_release_date END,
      (
        SELECT max(earlier.to_date) FROM buffer.audit_line AS earlier
        WHERE
          earlier.hold_id = transaction.hold_id
          AND earlier.verb = 'RESCHEDULE'
          AND earlier.to_date <= transaction.release_date
      )
    ),
    transaction.transaction_id,
    NULL,
    NULL
  FROM buffer.transaction
  INNER JOIN buffer.hold ON transaction.hold_id = hold.hold_id
  WHERE transaction.type IN ('REFUND', 'EARNING_PART')
  UNION ALL
  SELECT
    hold_id,
    from_date,
    date_before,
    NULL,
    audit_id,
    to_date
  FROM move
)

SELECT
  hold.hold_id,
  hold.reference,
  hold.original_release_date,
  said.release_date,
  said.transaction_id,
  said.audit_id,
  coalesce(rejected.rejections, 0) AS rejections,
  rejected.decided_at AS last_rejected_at
FROM buffer.hold
INNER JOIN said ON hold.hold_id = said.hold_id
LEFT JOIN rejected ON hold.hold_id = rejected.hold_id
LEFT JOIN buffer.hold_rule AS rule ON hold.rule_id = rule.rule_id
WHERE
  said.release_date < coalesce(said.date_before, hold.original_release_date)
  OR said.release_date
  > greatest(coalesce(said.date_before, hold.original_release_date), rejected.decided_at)
  + coalesce(rejected.rejections, 0) * coalesce(rule.cooldown_hours, 87600) * interval '1 hour'
  OR said.moved_to > greatest(said.release_date, hold.original_release_date + interval '90 days')
ORDER BY hold.hold_id, said.transaction_id, said.audit_id
