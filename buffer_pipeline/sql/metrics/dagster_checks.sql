-- In Dagster's database: the latest outcome of each of :checks on any of :asset_keys.
SELECT
  asked.check_name,
  latest.passed,
  latest.checked_at
FROM unnest(CAST(:checks AS text [])) AS asked (check_name)
CROSS JOIN LATERAL ( -- noqa: ST05
  SELECT
    execution_status = 'SUCCEEDED' AS passed,
    evaluation_event_timestamp AT TIME ZONE 'UTC' AS checked_at
  FROM public.asset_check_executions
  WHERE
    asset_check_executions.asset_key = any(CAST(:asset_keys AS text []))
    AND asset_check_executions.check_name = asked.check_name
    AND execution_status IN ('SUCCEEDED', 'FAILED')
  ORDER BY id DESC
  LIMIT 1
) AS latest
