-- The id of the newest hold; 0 if there is none. A hold that is added later has a larger id, except one that
-- is being added right now.
SELECT coalesce(max(hold_id), 0) AS hold_id
FROM buffer.hold
