-- A freeze of an earning is of its shares only, by the same person, of the same kind, for the same reason and at
-- the same moment, and as long as it is open on one of them it covers all that wait.
WITH
part AS (
  SELECT
    coalesce(earning_freeze_id, freeze_id) AS first_id,
    freeze_id,
    hold_id,
    earning_id,
    kind,
    opened_by,
    reason,
    opened_at,
    closed_at
  FROM buffer.hold_freeze
  WHERE earning_id IS NOT NULL
),

still_open AS (
  SELECT
    first_id,
    earning_id
  FROM part
  WHERE closed_at IS NULL
  GROUP BY first_id, earning_id
),

owed AS (
  SELECT
    share.first_id,
    share.hold_id
  FROM (
    SELECT
      first_id,
      earning_id AS hold_id
    FROM still_open
    UNION ALL
    SELECT
      still_open.first_id,
      hold.hold_id
    FROM still_open
    INNER JOIN buffer.hold ON still_open.earning_id = hold.earning_id
  ) AS share
  INNER JOIN buffer.unsettled_hold ON share.hold_id = unsettled_hold.hold_id
)

SELECT
  part.hold_id,
  part.first_id,
  part.freeze_id,
  part.earning_id
FROM part
LEFT JOIN buffer.hold ON part.hold_id = hold.hold_id
LEFT JOIN buffer.hold_freeze AS first ON part.first_id = first.freeze_id
WHERE
  coalesce(hold.earning_id, hold.hold_id) IS DISTINCT FROM part.earning_id
  OR (first.earning_id, first.kind, first.opened_by, first.reason, first.opened_at)
  IS DISTINCT FROM (part.earning_id, part.kind, part.opened_by, part.reason, part.opened_at)
UNION ALL
SELECT
  owed.hold_id,
  owed.first_id,
  NULL,
  NULL
FROM owed
WHERE
  NOT EXISTS (
    SELECT FROM buffer.hold_freeze AS covering
    WHERE
      covering.hold_id = owed.hold_id
      AND covering.closed_at IS NULL
      AND owed.first_id IN (covering.freeze_id, covering.earning_freeze_id)
  )
ORDER BY hold_id, first_id
