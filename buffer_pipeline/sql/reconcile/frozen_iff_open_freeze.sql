-- A hold is FROZEN if and only if a freeze on it is open.
SELECT
  hold.hold_id,
  hold.reference,
  hold.state,
  count(hold_freeze.freeze_id) AS open_freezes
FROM buffer.hold
LEFT JOIN buffer.hold_freeze ON hold.hold_id = hold_freeze.hold_id AND hold_freeze.closed_at IS NULL
WHERE hold.state = 'FROZEN' OR hold_freeze.freeze_id IS NOT NULL
GROUP BY hold.hold_id
HAVING (hold.state = 'FROZEN') <> (count(hold_freeze.freeze_id) > 0)
ORDER BY hold.hold_id
