-- One dispatch at a time, until this transaction ends: an owner's deliveries are numbered in the order in
-- which they became visible, and that is the order in which they are sent.
SELECT pg_advisory_xact_lock(hashtext('buffer.dispatch'))
