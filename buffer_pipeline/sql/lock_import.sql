-- One import at a time, until the transaction ends: whoever comes second finds what the first added.
SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('buffer.import_legacy', 0))
