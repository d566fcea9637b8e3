-- One import at a time, until the transaction ends. A second import then finds what the first one added.
SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('buffer.import_legacy', 0))
