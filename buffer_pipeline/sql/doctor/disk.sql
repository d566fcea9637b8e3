-- The size of this database, and the inactive replication slots. For these the server keeps its write-ahead
-- log without limit.
SELECT
  pg_database_size(current_database()) AS database_bytes,
  coalesce(sum(kept.bytes), 0)::bigint AS kept_bytes,
  coalesce(array_agg(kept.slot_name::text ORDER BY kept.slot_name) FILTER (WHERE kept.bytes > 0), '{}') AS slots
FROM (
  SELECT
    slot_name,
    pg_wal_lsn_diff(
      CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn
    ) AS bytes
  FROM pg_replication_slots
  WHERE NOT active
) AS kept
