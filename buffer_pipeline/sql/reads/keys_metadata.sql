-- The ids of all holds after :key whose metadata contains one of two objects: the newest first, or the oldest
-- first if not :newest. Reads only, by the index of metadata.
SELECT hold.hold_id
FROM buffer.hold
WHERE
  (hold.metadata @> CAST(:contained AS jsonb) OR hold.metadata @> CAST(:or_contained AS jsonb))
  AND CASE
    WHEN CAST(:newest AS boolean) THEN hold.hold_id < CAST(:key AS bigint)
    ELSE hold.hold_id > CAST(:key AS bigint)
  END
ORDER BY CASE WHEN CAST(:newest AS boolean) THEN -hold.hold_id ELSE hold.hold_id END
