-- One dispatch at a time, until the transaction ends. So an owner's deliveries are numbered in the order in
-- which their notifications became visible, which is the order of sending.
SELECT pg_advisory_xact_lock(hashtext('buffer.dispatch'))
