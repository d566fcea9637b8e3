-- The newest hold's id; 0 where there is none. What comes in later has a greater one, but for what is being added
-- right now.
SELECT coalesce(max(hold_id), 0) AS hold_id
FROM buffer.hold
