-- In Dagster's own database: the latest outcome of each of :checks, which are of :asset_keys, one by one.
SELECT
  asked.check_name,
  latest.passed,
  latest.checked_at
FROM unnest(CAST(:asset_keys AS text []), CAST(:checks AS text [])) AS asked (asset_key, check_name)
CROSS JOIN LATERAL ( -- noqa: ST05
  SELECT
    execution_status = 'SUCCEEDED' AS passed,
    evaluation_event_timestamp AT TIME ZONE 'UTC' AS checked_at
  FROM public.asset_check_executions
  WHERE
    asset_check_executions.asset_key = asked.asset_key
    AND asset_check_executions.check_name = asked.check_name
    AND execution_status IN ('SUCCEEDED', 'FAILED')
  ORDER BY id DESC
  LIMIT 1
) AS latest
