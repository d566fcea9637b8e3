-- What a claw-back takes of a hold is its CLAWBACK transaction and its debt. The hold is the one that the claw-back
-- named, or a share of that earning. No claw-back takes nothing.
WITH
share AS (
  SELECT
    clawback_id,
    hold_id,
    amount_minor
  FROM buffer.clawback_share
),

taken AS (
  SELECT
    batch_id AS clawback_id,
    hold_id,
    amount_minor
  FROM buffer.transaction
  WHERE type = 'CLAWBACK'
),

outcome AS (
  SELECT
    clawback_id,
    hold_id,
    sum(amount_minor) AS amount_minor
  FROM (
    SELECT * FROM taken
    UNION ALL
    SELECT
      clawback_id,
      hold_id,
      amount_minor
    FROM buffer.debt
  ) AS part
  GROUP BY clawback_id, hold_id
),

compared AS (
  SELECT
    coalesce(share.clawback_id, outcome.clawback_id) AS clawback_id,
    coalesce(share.hold_id, outcome.hold_id) AS hold_id,
    coalesce(share.amount_minor, 0) AS amount_minor,
    coalesce(outcome.amount_minor, 0) AS outcome_minor
  FROM share
  FULL JOIN outcome ON share.clawback_id = outcome.clawback_id AND share.hold_id = outcome.hold_id
),

named AS (
  SELECT
    batch_id,
    kind,
    named_hold_id
  FROM buffer.batch
  WHERE kind = 'CLAWBACK'
)

SELECT
  coalesce(named.batch_id, compared.clawback_id) AS clawback_id,
  named.named_hold_id,
  compared.hold_id,
  compared.amount_minor,
  compared.outcome_minor
FROM named
FULL JOIN compared ON named.batch_id = compared.clawback_id
LEFT JOIN buffer.hold ON compared.hold_id = hold.hold_id
WHERE
  named.batch_id IS NULL
  OR compared.hold_id IS NULL
  OR compared.amount_minor <> compared.outcome_minor
  OR NOT coalesce(named.named_hold_id IN (hold.hold_id, hold.earning_id), FALSE)
ORDER BY clawback_id, compared.hold_id
