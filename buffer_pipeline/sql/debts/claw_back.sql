-- Takes :amounts_minor back of :hold_ids, at the same position: from the payees' balances to the payer or out of the
-- books (:paid_to). What a balance does not cover is a debt of the payee to the wallet :advancer_wallet_id, which
-- pays it now; to the bank, which has taken it already; or else to the payer.
-- The states of the holds do not change. The caller has locked the wallets of all payees, the payer and the advancer.
-- Bound: the shares of one earning.
-- The shares of one owner are taken in the order of their ids. All transactions are in that order, first what the
-- balances cover, then what is advanced, and each has the balances after it.
-- An owner is told once of all their shares: of a fee or a tax only if they want to be. The payer is told what they get.
-- Writes nothing, and returns is_covered = FALSE, if the balance of the advancer does not cover it.
WITH
asked AS MATERIALIZED (
  SELECT
    hold.hold_id,
    hold.kind,
    hold.currency,
    hold.payee_wallet_id,
    hold.payer_wallet_id,
    payee.owner AS payee,
    payee.balance_minor,
    wanted.amount_minor,
    buffer.sum_minor(wanted.amount_minor) OVER (
      PARTITION BY hold.payee_wallet_id ORDER BY hold.hold_id ROWS UNBOUNDED PRECEDING
    ) - wanted.amount_minor AS before_minor
  FROM unnest(CAST(:hold_ids AS bigint[]), CAST(:amounts_minor AS bigint[])) AS wanted (hold_id, amount_minor)
  INNER JOIN buffer.hold ON wanted.hold_id = hold.hold_id
  INNER JOIN buffer.wallet AS payee ON hold.payee_wallet_id = payee.wallet_id
),

planned AS MATERIALIZED (
  SELECT
    asked.*,
    least(amount_minor, greatest(balance_minor - before_minor, 0)) AS taken_minor,
    amount_minor - least(amount_minor, greatest(balance_minor - before_minor, 0)) AS debt_minor
  FROM asked
),

-- The advancer may be the owner of a share too, of a fee for example. Their own share comes first.
advance AS MATERIALIZED (
  SELECT
    advanced.advance_minor,
    CASE
      WHEN CAST(:advancer_wallet_id AS bigint) IS NULL THEN TRUE
      ELSE advancer.balance_minor - advanced.own_minor >= advanced.advance_minor
    END AS is_covered
  FROM (
    SELECT
      CAST(coalesce(sum(debt_minor), 0) AS bigint) AS advance_minor,
      CAST(
        coalesce(sum(amount_minor) FILTER (WHERE payee_wallet_id = CAST(:advancer_wallet_id AS bigint)), 0) AS bigint
      ) AS own_minor
    FROM planned
  ) AS advanced
  LEFT JOIN buffer.wallet AS advancer ON advancer.wallet_id = CAST(:advancer_wallet_id AS bigint)
),

part AS MATERIALIZED (
  SELECT planned.*
  FROM planned
  CROSS JOIN advance
  WHERE advance.is_covered
),

opened_batch AS (
  INSERT INTO buffer.batch (
    kind, source, reason, reference, named_hold_id, paid_to, advancer_wallet_id, recorded_at
  )
  SELECT
    'CLAWBACK',
    :taken_by,
    :reason,
    :reference,
    CAST(:named_id AS bigint),
    :paid_to,
    CAST(:advancer_wallet_id AS bigint),
    CAST(:now AS timestamptz)
  WHERE EXISTS (SELECT FROM part)
  RETURNING batch_id
),

share AS (
  INSERT INTO buffer.clawback_share (clawback_id, hold_id, amount_minor)
  SELECT
    opened_batch.batch_id,
    part.hold_id,
    part.amount_minor
  FROM part
  CROSS JOIN opened_batch
),

opened_debt AS (
  INSERT INTO buffer.debt (
    clawback_id, hold_id, wallet_id, creditor_wallet_id, currency, amount_minor, outstanding_minor, opened_at
  )
  SELECT
    opened_batch.batch_id,
    part.hold_id,
    part.payee_wallet_id,
    coalesce(
      CAST(:advancer_wallet_id AS bigint), CASE WHEN :paid_to = 'PAYER' THEN part.payer_wallet_id END
    ),
    part.currency,
    part.debt_minor,
    part.debt_minor,
    CAST(:now AS timestamptz)
  FROM part
  CROSS JOIN opened_batch
  WHERE part.debt_minor > 0
  ORDER BY part.hold_id
  RETURNING debt_id, hold_id, creditor_wallet_id
),

movement AS MATERIALIZED (
  SELECT
    row_number() OVER (ORDER BY step, hold_id) AS place,
    moved.*
  FROM (
    SELECT
      1 AS step,
      hold_id,
      'CLAWBACK' AS type,
      'BALANCE' AS from_account,
      payee_wallet_id AS from_wallet_id,
      CASE WHEN :paid_to = 'PAYER' THEN payer_wallet_id END AS to_wallet_id,
      currency,
      taken_minor AS amount_minor,
      CAST(NULL AS bigint) AS debt_id
    FROM part
    WHERE taken_minor > 0
    UNION ALL
    SELECT
      2,
      part.hold_id,
      'ADVANCE',
      CASE WHEN opened_debt.creditor_wallet_id IS NULL THEN 'RECEIVABLE' ELSE 'BALANCE' END,
      opened_debt.creditor_wallet_id,
      CASE WHEN :paid_to = 'PAYER' THEN part.payer_wallet_id END,
      part.currency,
      part.debt_minor,
      opened_debt.debt_id
    FROM part
    INNER JOIN opened_debt ON part.hold_id = opened_debt.hold_id
    WHERE CAST(:advancer_wallet_id AS bigint) IS NOT NULL OR :paid_to = 'BANK'
  ) AS moved
),

leg AS MATERIALIZED (
  SELECT
    place,
    from_wallet_id AS wallet_id,
    -amount_minor AS change_minor
  FROM movement
  WHERE from_wallet_id IS NOT NULL
  UNION ALL
  SELECT
    place,
    to_wallet_id,
    amount_minor
  FROM movement
  WHERE to_wallet_id IS NOT NULL
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
    debt_minor = wallet.debt_minor + change.debt_minor
  FROM (
    SELECT
      wallet_id,
      CAST(sum(change_minor) AS bigint) AS change_minor,
      CAST(sum(debt_minor) AS bigint) AS debt_minor
    FROM (
      SELECT
        wallet_id,
        change_minor,
        0 AS debt_minor
      FROM leg
      UNION ALL
      SELECT
        payee_wallet_id,
        0,
        debt_minor
      FROM part
    ) AS effect
    GROUP BY wallet_id
  ) AS change
  WHERE wallet.wallet_id = change.wallet_id
),

line AS (
  INSERT INTO buffer.transaction (
    type, from_account, from_wallet_id, to_account, to_wallet_id, currency, amount_minor,
    balance_after_minor, from_balance_after_minor, hold_id, batch_id, debt_id, recorded_at
  )
  SELECT
    movement.type,
    movement.from_account,
    movement.from_wallet_id,
    CASE WHEN movement.to_wallet_id IS NULL THEN 'EXTERNAL' ELSE 'BALANCE' END,
    movement.to_wallet_id,
    movement.currency,
    movement.amount_minor,
    coalesce(entered.after_minor, left_wallet.after_minor),
    CASE WHEN entered.after_minor IS NOT NULL THEN left_wallet.after_minor END,
    movement.hold_id,
    opened_batch.batch_id,
    movement.debt_id,
    CAST(:now AS timestamptz)
  FROM movement
  CROSS JOIN opened_batch
  LEFT JOIN balance AS left_wallet
    ON movement.place = left_wallet.place AND movement.from_wallet_id = left_wallet.wallet_id
  LEFT JOIN balance AS entered
    ON movement.place = entered.place AND movement.to_wallet_id = entered.wallet_id
  ORDER BY movement.place
  RETURNING type, to_wallet_id, amount_minor
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
    told.amount_minor,
    nullif(told.debt_minor, 0),
    CASE WHEN told.type = 'EARNING_CLAWED_BACK' THEN (SELECT opened_batch.batch_id FROM opened_batch) END,
    CAST(:now AS timestamptz)
  FROM (
    SELECT
      'EARNING_CLAWED_BACK' AS type,
      payee AS owner,
      min(hold_id) AS hold_id,
      min(currency) AS currency,
      CAST(sum(amount_minor) AS bigint) AS amount_minor,
      CAST(sum(debt_minor) AS bigint) AS debt_minor
    FROM part
    GROUP BY payee
    HAVING
      bool_or(
        kind IN ('PAYEE', 'RESERVE')
        OR hold_id = CAST(:named_id AS bigint)
        OR buffer.notifies_of(hold_id, kind, payee)
      )
    UNION ALL
    SELECT
      'PAYMENT_REFUNDED',
      payer.owner,
      CAST(:named_id AS bigint),
      payer.currency,
      CAST(sum(movement.amount_minor) AS bigint),
      0
    FROM movement
    INNER JOIN buffer.wallet AS payer ON movement.to_wallet_id = payer.wallet_id
    GROUP BY payer.owner, payer.currency
  ) AS told
  ORDER BY told.type, told.hold_id
)

SELECT
  advance.is_covered,
  advance.advance_minor,
  (SELECT opened_batch.batch_id FROM opened_batch) AS batch_id,
  (SELECT CAST(coalesce(sum(line.amount_minor) FILTER (WHERE line.type = 'CLAWBACK'), 0) AS bigint) FROM line)
    AS taken_minor,
  (SELECT CAST(coalesce(sum(part.debt_minor), 0) AS bigint) FROM part) AS debt_minor,
  coalesce(
    (SELECT pg_catalog.array_agg(opened_debt.debt_id ORDER BY opened_debt.debt_id) FROM opened_debt),
    CAST(ARRAY[] AS bigint[])
  ) AS debt_ids
FROM advance
