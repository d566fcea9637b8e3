-- The next debts of which something is outstanding after :key, by id: the newest first, or the oldest first
-- if not :newest. Reads all of them, by their index, and nothing else. Reads only.
WITH
found AS MATERIALIZED (
  SELECT debt.debt_id
  FROM buffer.debt
  WHERE debt.outstanding_minor > 0
)

SELECT
  found.debt_id AS key,
  found.debt_id
FROM found
WHERE
  CASE
    WHEN CAST(:newest AS boolean) THEN found.debt_id < CAST(:key AS bigint)
    ELSE found.debt_id > CAST(:key AS bigint)
  END
ORDER BY CASE WHEN CAST(:newest AS boolean) THEN -found.debt_id ELSE found.debt_id END
LIMIT CAST(:row_limit AS bigint)
