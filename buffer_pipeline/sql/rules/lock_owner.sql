-- One assignment of a rule to this owner at a time, until the transaction ends. The statement after it sees what
-- the former holder of the lock committed.
SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('buffer.rule_of:' || CAST(:owner AS text), 0))
