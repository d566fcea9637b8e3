-- Inserts each job that is new, with its payer, and locks the others, in the order of their names. Until the
-- transaction ends, nobody else requests or decides a backjob on them. No job comes twice.
-- The row of an existing job is written: a REPEATABLE READ transaction that requests or decides a backjob
-- from a snapshot before this addition must fail with a serialization error.
-- Inserts and locks in one ordered pass. In two passes, two transactions could wait for each other.
-- Returns the payer and the open backjob of each, as three arrays.
WITH
found AS (
  INSERT INTO buffer.job AS existing (job, payer)
  SELECT
    incoming.job,
    incoming.payer
  FROM unnest(CAST(:jobs AS text[]), CAST(:payers AS text[])) AS incoming (job, payer)
  ORDER BY incoming.job
  ON CONFLICT (job) DO UPDATE SET open_backjob_id = existing.open_backjob_id
  RETURNING existing.job, existing.payer, existing.open_backjob_id
)

SELECT
  pg_catalog.array_agg(job) AS jobs,
  pg_catalog.array_agg(payer) AS payers,
  pg_catalog.array_agg(open_backjob_id) AS backjob_ids
FROM found
