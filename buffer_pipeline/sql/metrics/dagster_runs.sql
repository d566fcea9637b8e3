-- In Dagster's database: when a release run last completed.
SELECT last_materialization_timestamp AT TIME ZONE 'UTC' AS succeeded_at
FROM public.asset_keys
WHERE asset_key = :asset_key AND last_materialization_timestamp IS NOT NULL
