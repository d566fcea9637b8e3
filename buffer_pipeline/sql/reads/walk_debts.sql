-- The next debts after :key, by id: the newest first, or the oldest first if not :newest. Reads only, by the
-- primary key.
SELECT
  next.debt_id AS key,
  next.debt_id
FROM (
  (
    SELECT debt.debt_id
    FROM buffer.debt
    WHERE CAST(:newest AS boolean) AND debt.debt_id < CAST(:key AS bigint)
    ORDER BY debt.debt_id DESC
    LIMIT CAST(:row_limit AS bigint)
  )
  UNION ALL
  (
    SELECT debt.debt_id
    FROM buffer.debt
    WHERE NOT CAST(:newest AS boolean) AND debt.debt_id > CAST(:key AS bigint)
    ORDER BY debt.debt_id
    LIMIT CAST(:row_limit AS bigint)
  )
) AS next
ORDER BY CASE WHEN CAST(:newest AS boolean) THEN -next.debt_id ELSE next.debt_id END
