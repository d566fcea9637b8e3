-- How much of what :hold_ids have just released, :amounts_minor at the same position, may pay the debts of each
-- payee: the percent that the hold's rule says, all of it without a rule; and the creditors of these debts.
-- Operands have the same type, so that no operator of a caller's search path fits better.
SELECT
  released.wallet_id,
  released.budget_minor,
  (
    SELECT coalesce(pg_catalog.array_agg(DISTINCT debt.creditor_wallet_id), CAST(ARRAY[] AS bigint[]))
    FROM buffer.debt
    WHERE
      debt.wallet_id = released.wallet_id
      AND debt.outstanding_minor > 0
      AND debt.creditor_wallet_id IS NOT NULL
  ) AS creditor_ids
FROM (
  SELECT
    hold.payee_wallet_id AS wallet_id,
    CAST(
      sum(
        floor(
          CAST(given.amount_minor AS numeric)
          * coalesce(of_rule.recovery_percent, CAST(100 AS numeric))
          / CAST(100 AS numeric)
        )
      ) AS bigint
    ) AS budget_minor
  FROM unnest(CAST(:hold_ids AS bigint[]), CAST(:amounts_minor AS bigint[])) AS given (hold_id, amount_minor)
  INNER JOIN buffer.hold ON given.hold_id = hold.hold_id
  LEFT JOIN buffer.hold_rule AS of_rule ON hold.rule_id = of_rule.rule_id
  GROUP BY hold.payee_wallet_id
) AS released
WHERE released.budget_minor > 0
ORDER BY released.wallet_id
