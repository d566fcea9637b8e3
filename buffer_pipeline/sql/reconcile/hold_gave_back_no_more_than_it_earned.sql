-- What claw-backs have taken of a hold is at most what it has earned.
WITH
given AS (
  SELECT
    hold_id,
    sum(amount_minor) AS amount_minor
  FROM buffer.clawback_share
  GROUP BY hold_id
),

earned AS (
  SELECT
    given.hold_id,
    coalesce(sum(transaction.amount_minor), 0) AS amount_minor
  FROM given
  LEFT JOIN buffer.transaction
    ON given.hold_id = transaction.hold_id AND transaction.type IN ('EARNING', 'EARNING_PART')
  GROUP BY given.hold_id
)

SELECT
  hold.hold_id,
  hold.reference,
  hold.currency,
  earned.amount_minor AS earned_minor,
  given.amount_minor AS clawed_back_minor
FROM given
INNER JOIN earned ON given.hold_id = earned.hold_id
INNER JOIN buffer.hold ON given.hold_id = hold.hold_id
WHERE given.amount_minor > earned.amount_minor
ORDER BY hold.hold_id
