-- In Dagster's own database: when a release run last came to its end.
SELECT last_materialization_timestamp AT TIME ZONE 'UTC' AS succeeded_at
FROM public.asset_keys
WHERE asset_key = :asset_key AND last_materialization_timestamp IS NOT NULL
