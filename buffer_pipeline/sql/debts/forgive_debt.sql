-- Writes off what is outstanding of the debt :debt_id: the creditor gets it from the account LOSS. The debtor is
-- notified, and so is a payer who has waited for a refund.
-- The caller has locked the debtor's and the creditor's wallet. One debt. No row if nothing is outstanding.
WITH
open_debt AS MATERIALIZED (
  SELECT
    debt_id,
    clawback_id,
    hold_id,
    wallet_id,
    creditor_wallet_id,
    currency,
    outstanding_minor
  FROM buffer.debt
  WHERE debt_id = CAST(:debt_id AS bigint) AND outstanding_minor > 0
),

opened_batch AS (
  INSERT INTO buffer.batch (kind, source, reason, reference, recorded_at)
  SELECT
    'FORGIVEN',
    :forgiven_by,
    :reason,
    CAST(:reference AS text),
    CAST(:now AS timestamptz)
  FROM open_debt
  RETURNING batch_id
),

closed AS (
  UPDATE buffer.debt
  SET
    outstanding_minor = 0,
    closed_at = CAST(:now AS timestamptz),
    forgiven_id = (SELECT opened_batch.batch_id FROM opened_batch)
  WHERE debt_id = (SELECT open_debt.debt_id FROM open_debt)
),

debtor AS (
  UPDATE buffer.wallet
  SET debt_minor = wallet.debt_minor - open_debt.outstanding_minor
  FROM open_debt
  WHERE wallet.wallet_id = open_debt.wallet_id
  RETURNING wallet.owner
),

creditor AS (
  UPDATE buffer.wallet
  SET balance_minor = wallet.balance_minor + open_debt.outstanding_minor
  FROM open_debt
  WHERE wallet.wallet_id = open_debt.creditor_wallet_id
  RETURNING wallet.wallet_id, wallet.owner, wallet.balance_minor
),

line AS (
  INSERT INTO buffer.transaction (
    type, from_account, to_account, to_wallet_id, currency, amount_minor, balance_after_minor,
    batch_id, debt_id, recorded_at
  )
  SELECT
    'WRITE_OFF',
    'LOSS',
    CASE WHEN open_debt.creditor_wallet_id IS NULL THEN 'RECEIVABLE' ELSE 'BALANCE' END,
    creditor.wallet_id,
    open_debt.currency,
    open_debt.outstanding_minor,
    creditor.balance_minor,
    opened_batch.batch_id,
    open_debt.debt_id,
    CAST(:now AS timestamptz)
  FROM open_debt
  CROSS JOIN opened_batch
  LEFT JOIN creditor ON open_debt.creditor_wallet_id = creditor.wallet_id
  RETURNING batch_id, amount_minor
),

notified AS (
  INSERT INTO buffer.notification (type, owner, hold_id, currency, amount_minor, clawback_id, created_at)
  SELECT
    told.type,
    told.owner,
    open_debt.hold_id,
    open_debt.currency,
    open_debt.outstanding_minor,
    told.clawback_id,
    CAST(:now AS timestamptz)
  FROM open_debt
  CROSS JOIN LATERAL (
    SELECT
      1 AS step,
      'DEBT_FORGIVEN' AS type,
      debtor.owner,
      open_debt.clawback_id
    FROM debtor
    UNION ALL
    SELECT
      2,
      'PAYMENT_REFUNDED',
      creditor.owner,
      NULL
    FROM creditor
    INNER JOIN buffer.hold
      ON hold.hold_id = open_debt.hold_id AND creditor.wallet_id = hold.payer_wallet_id
  ) AS told
  ORDER BY told.step
)

SELECT
  batch_id,
  amount_minor
FROM line
