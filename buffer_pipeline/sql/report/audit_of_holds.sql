-- The facts of the audit trail about one owner or hold: the newest first, at most :row_limit of those that match
-- every filter which is not NULL: :owner (the payee of the hold, or the owner of the wallet), :hold_id, :acted_by
-- and :since. :owner or :hold_id is given.
-- A freeze of an owner has none here (audit_owners_and_rules.sql has it), except for :hold_id. A freeze of an
-- earning and its closing have one each: that of the first share, of those that are asked for.
WITH
generation AS MATERIALIZED (
  SELECT pg_catalog.generate_series(0, newest.transaction_id >> 17) AS generation
  FROM (
    SELECT max(transaction.transaction_id) AS transaction_id
    FROM buffer.transaction
  ) AS newest
  WHERE CAST(:owner AS text) IS NOT NULL
),

-- The earnings and deposits that came into an owner's wallets (docs/decisions/0019), and the withdrawals.
of_wallets AS MATERIALIZED (
  SELECT
    into_wallet.transaction_id,
    into_wallet.type,
    into_wallet.hold_id,
    into_wallet.recorded_at
  FROM buffer.wallet
  CROSS JOIN generation
  CROSS JOIN LATERAL (
    SELECT *
    FROM buffer.transaction
    WHERE
      transaction.transaction_id >> 17 = generation.generation
      AND transaction.to_wallet_id = wallet.wallet_id
      AND transaction.type IN ('PENDING_EARNING', 'DEPOSIT')
    ORDER BY transaction.transaction_id
  ) AS into_wallet
  WHERE wallet.owner = CAST(:owner AS text)
  UNION ALL
  SELECT
    out_of_wallet.transaction_id,
    out_of_wallet.type,
    NULL,
    out_of_wallet.recorded_at
  FROM buffer.wallet
  CROSS JOIN LATERAL (
    SELECT *
    FROM buffer.transaction
    WHERE
      transaction.from_wallet_id = wallet.wallet_id
      AND transaction.from_wallet_id IS DISTINCT FROM transaction.to_wallet_id
      AND transaction.type = 'WITHDRAWAL'
    ORDER BY transaction.transaction_id
  ) AS out_of_wallet
  WHERE wallet.owner = CAST(:owner AS text)
),

asked AS MATERIALIZED (
  SELECT hold_id
  FROM of_wallets
  WHERE type = 'PENDING_EARNING' AND (CAST(:hold_id AS bigint) IS NULL OR hold_id = CAST(:hold_id AS bigint))
  UNION ALL
  SELECT CAST(:hold_id AS bigint)
  WHERE CAST(:owner AS text) IS NULL AND CAST(:hold_id AS bigint) IS NOT NULL
),

of_holds AS (
  SELECT
    'LINE' AS source,
    audit_id AS id,
    at,
    by
  FROM buffer.audit_line
  WHERE hold_id = any(ARRAY(SELECT hold_id FROM asked))
  UNION ALL
  SELECT
    'MOVED',
    of_wallets.transaction_id,
    of_wallets.recorded_at,
    audit_line.by
  FROM of_wallets
  LEFT JOIN buffer.audit_line ON of_wallets.transaction_id = audit_line.transaction_id
  WHERE of_wallets.type <> 'PENDING_EARNING' AND CAST(:hold_id AS bigint) IS NULL
  UNION ALL
  SELECT
    'OPENED',
    min(freeze_id),
    opened_at,
    opened_by
  FROM buffer.hold_freeze
  WHERE
    hold_id = any(ARRAY(SELECT hold_id FROM asked))
    AND (owner_freeze_id IS NULL OR CAST(:hold_id AS bigint) IS NOT NULL)
  GROUP BY coalesce(earning_freeze_id, freeze_id), opened_at, opened_by
  UNION ALL
  SELECT
    'CLOSED',
    min(freeze_id),
    closed_at,
    closed_by
  FROM buffer.hold_freeze
  WHERE
    hold_id = any(ARRAY(SELECT hold_id FROM asked))
    AND closed_at IS NOT NULL
    AND (owner_freeze_id IS NULL OR CAST(:hold_id AS bigint) IS NOT NULL)
  GROUP BY coalesce(earning_freeze_id, freeze_id), closed_at, closed_by
  UNION ALL
  -- Two partial indexes cover a hold's transactions: one the EARNINGs, one the others.
  SELECT
    'BATCH',
    settling.transaction_id,
    settling.recorded_at,
    batch.source
  FROM (
    SELECT
      transaction_id,
      batch_id,
      recorded_at
    FROM buffer.transaction
    WHERE hold_id = any(ARRAY(SELECT hold_id FROM asked)) AND type = 'EARNING'
    UNION ALL
    SELECT
      transaction_id,
      batch_id,
      recorded_at
    FROM buffer.transaction
    WHERE hold_id = any(ARRAY(SELECT hold_id FROM asked)) AND type <> 'EARNING'
      AND type IN ('REFUND', 'EARNING_PART', 'CLAWBACK', 'ADVANCE')
    UNION ALL
    SELECT
      transaction_id,
      batch_id,
      recorded_at
    FROM buffer.transaction
    WHERE
      debt_id = any(ARRAY(
        SELECT debt.debt_id FROM buffer.debt
        WHERE debt.hold_id = any(ARRAY(SELECT hold_id FROM asked))
      ))
      AND type IN ('RECOVERY', 'WRITE_OFF')
  ) AS settling
  INNER JOIN buffer.batch ON settling.batch_id = batch.batch_id
  WHERE batch.kind <> 'DUE'
  UNION ALL
  -- What a claw-back took of a hold as a debt only has no transaction.
  SELECT
    'DEBT',
    debt.debt_id,
    debt.opened_at,
    batch.source
  FROM buffer.debt
  INNER JOIN buffer.batch ON debt.clawback_id = batch.batch_id
  WHERE
    debt.hold_id = any(ARRAY(SELECT hold_id FROM asked))
    AND NOT EXISTS (
      SELECT FROM buffer.transaction
      WHERE
        transaction.hold_id = debt.hold_id
        AND transaction.batch_id = debt.clawback_id
        AND transaction.type <> 'EARNING'
    )
)

SELECT
  source,
  id
FROM of_holds
WHERE
  (CAST(:acted_by AS text) IS NULL OR by = CAST(:acted_by AS text))
  AND (CAST(:since AS timestamptz) IS NULL OR at >= CAST(:since AS timestamptz))
ORDER BY at DESC, source ASC, id DESC
LIMIT CAST(:row_limit AS bigint)
