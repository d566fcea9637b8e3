-- Makes each job that is new, with its payer, and locks the others, by name: until the transaction ends no backjob is
-- requested or decided on them. The jobs differ from each other.
-- The row of a job that is there is written: a REPEATABLE READ transaction that asks for a backjob or decides on one by a
-- snapshot from before this addition must fail with a serialization error.
-- Inserts and locks in one ordered pass. In two passes, two transactions could wait for each other.
-- Returns the payer and the open backjob of each, as three arrays.
WITH
found AS (
  INSERT INTO buffer.job AS standing (job, payer)
  SELECT
    incoming.job,
    incoming.payer
  FROM unnest(CAST(:jobs AS text[]), CAST(:payers AS text[])) AS incoming (job, payer)
  ORDER BY incoming.job
  ON CONFLICT (job) DO UPDATE SET open_backjob_id = standing.open_backjob_id
  RETURNING standing.job, standing.payer, standing.open_backjob_id
)

SELECT
  pg_catalog.array_agg(job) AS jobs,
  pg_catalog.array_agg(payer) AS payers,
  pg_catalog.array_agg(open_backjob_id) AS backjob_ids
FROM found
