-- Whether all have ended that had begun before :horizon.
SELECT pg_snapshot_xmin(pg_current_snapshot()) >= CAST(CAST(:horizon AS text) AS xid8) AS has_passed
