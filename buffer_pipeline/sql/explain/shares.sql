-- The holds that an early release by the id of :hold_id takes: that hold, and if it is an earning's own, its
-- other shares but the reserve. Each with its state, NULL if it is settled. Reads only.
SELECT
  hold.hold_id,
  hold.rule_id,
  unsettled_hold.state
FROM buffer.hold
LEFT JOIN buffer.unsettled_hold ON hold.hold_id = unsettled_hold.hold_id
WHERE
  hold.hold_id = CAST(:hold_id AS bigint)
  OR (hold.earning_id = CAST(:hold_id AS bigint) AND hold.kind <> 'RESERVE')
ORDER BY hold.hold_id
