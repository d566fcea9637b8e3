-- One count at a time, until the transaction ends. Two counts that delete and insert the same hours would
-- collide.
SELECT pg_advisory_xact_lock(hashtext('buffer.counts'))
