-- The ids of all holds after :key that a release takes at :due_by: the newest first, or the oldest first if
-- not :newest. Reads only, by the index of the release.
SELECT unsettled_hold.hold_id
FROM buffer.unsettled_hold
WHERE
  unsettled_hold.state = 'BUFFERED'
  AND unsettled_hold.release_hour <= CAST(:due_by AS timestamptz)
  AND unsettled_hold.release_date <= CAST(:due_by AS timestamptz)
  AND CASE
    WHEN CAST(:newest AS boolean) THEN unsettled_hold.hold_id < CAST(:key AS bigint)
    ELSE unsettled_hold.hold_id > CAST(:key AS bigint)
  END
ORDER BY CASE WHEN CAST(:newest AS boolean) THEN -unsettled_hold.hold_id ELSE unsettled_hold.hold_id END
