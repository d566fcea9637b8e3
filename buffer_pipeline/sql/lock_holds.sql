-- Locks, by id, what is unsettled of :hold_ids or of the job's holds. A null argument matches nothing.
-- The ids come as one array, so that each is looked up, however many holds the planner takes a job to have.
SELECT hold_id
FROM buffer.unsettled_hold
WHERE hold_id = any(ARRAY(
  SELECT hold.hold_id
  FROM buffer.hold
  WHERE hold.hold_id = any(CAST(:hold_ids AS bigint[])) OR hold.job = CAST(:job AS text)
))
ORDER BY hold_id
FOR NO KEY UPDATE OF unsettled_hold
