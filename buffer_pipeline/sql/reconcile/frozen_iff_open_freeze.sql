-- A hold is FROZEN if and only if a freeze on it is open.
WITH
frozen AS (
  SELECT
    hold_id,
    count(*) AS open_freezes
  FROM buffer.hold_freeze
  WHERE closed_at IS NULL
  GROUP BY hold_id
)

SELECT
  coalesce(unsettled_hold.hold_id, frozen.hold_id) AS hold_id,
  coalesce(unsettled_hold.state, 'settled') AS state,
  coalesce(frozen.open_freezes, 0) AS open_freezes
FROM buffer.unsettled_hold
FULL JOIN frozen ON unsettled_hold.hold_id = frozen.hold_id
WHERE (unsettled_hold.state IS NOT DISTINCT FROM 'FROZEN') <> (frozen.hold_id IS NOT NULL)
ORDER BY hold_id
