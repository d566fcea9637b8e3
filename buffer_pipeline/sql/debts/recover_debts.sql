-- Pays the open debts of :wallet_ids from their balances, the oldest debt first: at most :budgets_minor of each, at
-- the same position, and at most its balance. The lines are of the batch :batch_id.
-- The caller has locked these wallets and those of their creditors. Bound: the open debts of these wallets.
-- A wallet may owe and be owed at once. So each line has a place, by debtor and age of the debt, and the balances after
-- it are those of all lines up to that place. What a debtor receives here is not spent here.
-- Operands have the same type, so that no operator of a caller's search path fits better.
-- A creditor whose wallet could exceed a bigint gets nothing. A debtor is notified once for each debt, and a payer who
-- waits for a refund of what they get.
WITH
budget AS MATERIALIZED (
  SELECT
    wallet.wallet_id,
    wallet.owner,
    least(asked.budget_minor, wallet.balance_minor) AS budget_minor
  FROM unnest(CAST(:wallet_ids AS bigint[]), CAST(:budgets_minor AS bigint[])) AS asked (wallet_id, budget_minor)
  INNER JOIN buffer.wallet ON asked.wallet_id = wallet.wallet_id
),

owed AS MATERIALIZED (
  SELECT
    budget.wallet_id,
    budget.owner,
    budget.budget_minor,
    open_debt.*
  FROM budget
  CROSS JOIN LATERAL (
    SELECT
      debt.debt_id,
      debt.clawback_id,
      debt.hold_id,
      debt.creditor_wallet_id,
      debt.currency,
      debt.outstanding_minor,
      debt.opened_at
    FROM buffer.debt
    WHERE debt.wallet_id = budget.wallet_id AND debt.outstanding_minor > 0
    ORDER BY debt.opened_at, debt.debt_id
  ) AS open_debt
  WHERE budget.budget_minor > 0
),

-- Creditors with room for all that is owed to them here.
creditor AS MATERIALIZED (
  SELECT
    wallet.wallet_id,
    wallet.owner,
    wallet.balance_minor
  FROM (
    SELECT
      creditor_wallet_id,
      sum(outstanding_minor) AS outstanding_minor
    FROM owed
    WHERE creditor_wallet_id IS NOT NULL
    GROUP BY creditor_wallet_id
  ) AS waiting
  CROSS JOIN LATERAL (
    SELECT
      found.wallet_id,
      found.owner,
      found.balance_minor,
      found.pending_earnings_minor
    FROM buffer.wallet AS found
    WHERE found.wallet_id = waiting.creditor_wallet_id
    ORDER BY found.wallet_id
    LIMIT 1
  ) AS wallet
  WHERE
    waiting.outstanding_minor
    <= CAST(9223372036854775807 - wallet.pending_earnings_minor - wallet.balance_minor AS numeric)
),

payable AS MATERIALIZED (
  SELECT
    owed.*,
    creditor.owner AS creditor,
    least(
      owed.outstanding_minor,
      greatest(
        CAST(owed.budget_minor AS numeric) + CAST(owed.outstanding_minor AS numeric)
        - sum(owed.outstanding_minor) OVER (
          PARTITION BY owed.wallet_id ORDER BY owed.opened_at, owed.debt_id ROWS UNBOUNDED PRECEDING
        ),
        0
      )
    ) AS paid
  FROM owed
  LEFT JOIN creditor ON owed.creditor_wallet_id = creditor.wallet_id
  WHERE owed.creditor_wallet_id IS NULL OR creditor.wallet_id IS NOT NULL
),

payment AS MATERIALIZED (
  SELECT
    payable.*,
    CAST(paid AS bigint) AS paid_minor,
    row_number() OVER (ORDER BY wallet_id, opened_at, debt_id) AS place
  FROM payable
  WHERE CAST(paid AS bigint) > 0
),

leg AS MATERIALIZED (
  SELECT
    place,
    wallet_id,
    -paid_minor AS change_minor,
    paid_minor AS recovered_minor
  FROM payment
  UNION ALL
  SELECT
    place,
    creditor_wallet_id,
    paid_minor,
    0
  FROM payment
  WHERE creditor_wallet_id IS NOT NULL
),

balance AS MATERIALIZED (
  SELECT
    leg.place,
    leg.wallet_id,
    wallet.balance_minor + buffer.sum_minor(leg.change_minor) OVER (
      PARTITION BY leg.wallet_id ORDER BY leg.place ROWS UNBOUNDED PRECEDING
    ) AS after_minor
  FROM leg
  INNER JOIN buffer.wallet ON leg.wallet_id = wallet.wallet_id
),

changed_wallet AS (
  UPDATE buffer.wallet
  SET
    balance_minor = wallet.balance_minor + change.change_minor,
    debt_minor = wallet.debt_minor - change.recovered_minor
  FROM (
    SELECT
      wallet_id,
      CAST(sum(change_minor) AS bigint) AS change_minor,
      CAST(sum(recovered_minor) AS bigint) AS recovered_minor
    FROM leg
    GROUP BY wallet_id
  ) AS change
  WHERE wallet.wallet_id = change.wallet_id
),

paid_debt AS (
  UPDATE buffer.debt
  SET
    outstanding_minor = debt.outstanding_minor - payment.paid_minor,
    closed_at = CASE
      WHEN debt.outstanding_minor = payment.paid_minor THEN greatest(CAST(:now AS timestamptz), debt.opened_at)
    END
  FROM payment
  WHERE debt.debt_id = payment.debt_id
),

line AS (
  INSERT INTO buffer.transaction (
    type, from_account, from_wallet_id, to_account, to_wallet_id, currency, amount_minor,
    balance_after_minor, from_balance_after_minor, batch_id, debt_id, recorded_at
  )
  SELECT
    'RECOVERY',
    'BALANCE',
    payment.wallet_id,
    CASE WHEN payment.creditor_wallet_id IS NULL THEN 'RECEIVABLE' ELSE 'BALANCE' END,
    payment.creditor_wallet_id,
    payment.currency,
    payment.paid_minor,
    coalesce(entered.after_minor, left_wallet.after_minor),
    CASE WHEN entered.after_minor IS NOT NULL THEN left_wallet.after_minor END,
    CAST(:batch_id AS bigint),
    payment.debt_id,
    CAST(:now AS timestamptz)
  FROM payment
  INNER JOIN balance AS left_wallet
    ON payment.place = left_wallet.place AND payment.wallet_id = left_wallet.wallet_id
  LEFT JOIN balance AS entered
    ON payment.place = entered.place AND payment.creditor_wallet_id = entered.wallet_id
  ORDER BY payment.place
  RETURNING debt_id, amount_minor
),

notified AS (
  INSERT INTO buffer.notification (
    type, owner, hold_id, currency, amount_minor, left_minor, clawback_id, created_at
  )
  SELECT
    told.type,
    told.owner,
    told.hold_id,
    told.currency,
    told.paid_minor,
    nullif(told.left_minor, 0),
    told.clawback_id,
    CAST(:now AS timestamptz)
  FROM (
    SELECT
      1 AS step,
      place,
      'DEBT_RECOVERED' AS type,
      owner,
      hold_id,
      currency,
      paid_minor,
      outstanding_minor - paid_minor AS left_minor,
      clawback_id
    FROM payment
    UNION ALL
    SELECT
      2,
      payment.place,
      'PAYMENT_REFUNDED',
      payment.creditor,
      payment.hold_id,
      payment.currency,
      payment.paid_minor,
      0,
      NULL
    FROM payment
    INNER JOIN buffer.hold
      ON payment.hold_id = hold.hold_id AND payment.creditor_wallet_id = hold.payer_wallet_id
  ) AS told
  ORDER BY told.place, told.step
)

SELECT
  payment.debt_id,
  payment.wallet_id,
  payment.currency,
  payment.paid_minor,
  coalesce(line.amount_minor, 0) AS line_minor
FROM payment
LEFT JOIN line ON payment.debt_id = line.debt_id
ORDER BY payment.place
