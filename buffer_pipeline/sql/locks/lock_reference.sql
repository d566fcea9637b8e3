-- One verb with this reference at a time, until the transaction ends. A second one then finds what the first
-- one wrote.
SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('buffer.reference:' || CAST(:reference AS text), 0))
