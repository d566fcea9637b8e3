-- One change of this owner's destination or schedule at a time, until the transaction ends. The statement after it
-- sees what the former holder of the lock committed.
SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('buffer.payouts_of:' || CAST(:owner AS text), 0))
