-- Locks, in the order of their ids, the unsettled holds among :hold_ids or among the job's holds; :with_shares
-- adds the other shares of earnings among :hold_ids. A NULL argument matches nothing.
-- The ids are one array, so that each hold is looked up by the index, however many holds of the job the
-- planner expects.
SELECT hold_id
FROM buffer.unsettled_hold
WHERE hold_id = any(ARRAY(
  SELECT hold.hold_id
  FROM buffer.hold
  WHERE
    hold.hold_id = any(CAST(:hold_ids AS bigint[]))
    OR (CAST(:with_shares AS boolean) AND hold.earning_id = any(CAST(:hold_ids AS bigint[])))
    OR hold.job = CAST(:job AS text)
))
ORDER BY hold_id
FOR NO KEY UPDATE OF unsettled_hold
