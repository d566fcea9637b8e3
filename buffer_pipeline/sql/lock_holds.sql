-- Locks, by id, what is unsettled of :hold_ids or of the job's holds. A null argument matches nothing.
SELECT unsettled_hold.hold_id
FROM buffer.unsettled_hold
INNER JOIN buffer.hold ON unsettled_hold.hold_id = hold.hold_id
WHERE hold.hold_id = any(CAST(:hold_ids AS bigint[])) OR hold.job = CAST(:job AS text)
ORDER BY unsettled_hold.hold_id
FOR NO KEY UPDATE OF unsettled_hold
