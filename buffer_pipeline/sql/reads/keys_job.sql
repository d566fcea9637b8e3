-- The ids of all holds of :job after :key: the newest first, or the oldest first if not :newest. Reads only,
-- by the index of the job.
SELECT hold.hold_id
FROM buffer.hold
WHERE
  hold.job = CAST(:job AS text)
  AND CASE
    WHEN CAST(:newest AS boolean) THEN hold.hold_id < CAST(:key AS bigint)
    ELSE hold.hold_id > CAST(:key AS bigint)
  END
ORDER BY CASE WHEN CAST(:newest AS boolean) THEN -hold.hold_id ELSE hold.hold_id END
