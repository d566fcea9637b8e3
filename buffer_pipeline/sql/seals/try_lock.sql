-- One sealer at a time, until the transaction ends. Returns whether it is this one.
SELECT pg_try_advisory_xact_lock(hashtextextended('buffer.seal', 0)) AS is_mine
